"""Dynamic batching: requests that wait at the same time are scored together, by one worker thread."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..rewards import RewardError
from ..rewards.base import Reward, only_read
from .pictures import as_float

log = logging.getLogger(__name__)
Scores = dict[str, list[float]]  # reward -> one score a picture


@dataclass(eq=False)
class Job:
    """One request's pictures."""

    pictures: Sequence[Tensor]  # N of [3, H, W], see pictures.as_float
    prompts: Sequence[str]  # N
    rewards: Sequence[str]
    answer: "asyncio.Future[Scores]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Takes jobs on the event loop, scores them on its thread.

    Args:
        rewards: by name.
        batch_size: pictures scored at once. A batch is of whole jobs; a larger job is one of its own, scored in parts.
        window: seconds that a batch which is not full yet waits for more.
    """

    def __init__(self, rewards: Mapping[str, Reward], *, device: str, batch_size: int, window: float):
        self.rewards = rewards
        self.device = device
        self.batch_size = batch_size
        self.window = window
        self.waiting: deque[Job] = deque()
        self.arrived = asyncio.Event()
        self.worker = ThreadPoolExecutor(1, "scoring")

    async def score(self, pictures: Sequence[Tensor], prompts: Sequence[str], rewards: Sequence[str]) -> Scores:
        """Scores of one request. Cancelled before its turn, it is never scored.

        Raises:
            RewardError: a reward refuses its pictures or prompts.
        """
        job = Job(pictures, prompts, rewards)
        self.waiting.append(job)
        self.arrived.set()
        return await job.answer

    async def run(self) -> None:
        """Score what comes, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            jobs = await self.next_batch()
            outcomes = await loop.run_in_executor(self.worker, self.outcomes, jobs)
            for job, outcome in zip(jobs, outcomes, strict=True):
                if job.answer.done():  # its client went away
                    continue
                if isinstance(outcome, Exception):
                    job.answer.set_exception(outcome)
                else:
                    job.answer.set_result(outcome)

    async def next_batch(self) -> list[Job]:
        while not self.waiting:
            self.arrived.clear()
            await self.arrived.wait()
        if sum(len(job.pictures) for job in self.waiting) < self.batch_size:
            await asyncio.sleep(self.window)
        batch: list[Job] = []
        size = 0
        while self.waiting and (not batch or size + len(self.waiting[0].pictures) <= self.batch_size):
            job = self.waiting.popleft()
            if not job.answer.done():
                batch.append(job)
                size += len(job.pictures)
        return batch

    def outcomes(self, jobs: Sequence[Job]) -> Sequence[Scores | Exception]:
        """Each job's scores, or what went wrong with this one: the others are scored all the same."""
        try:
            return self.score_together(jobs)
        except Exception as error:  # a reward may be anyone's code; what it raises is answered, not lost
            if not isinstance(error, RewardError):
                log.exception("a reward failed")
            if len(jobs) == 1:
                return [error]
        return [outcome for job in jobs for outcome in self.outcomes([job])]

    @torch.inference_mode()
    def score_together(self, jobs: Sequence[Job]) -> list[Scores]:
        found: list[Scores] = [{name: [0.0] * len(job.pictures) for name in job.rewards} for job in jobs]
        for name, reward in self.rewards.items():
            wanted = [(j, i) for j, job in enumerate(jobs) if name in job.rewards for i in range(len(job.pictures))]
            for places in by_size(wanted, jobs):
                for start in range(0, len(places), self.batch_size):
                    part = places[start : start + self.batch_size]
                    images = as_float([jobs[j].pictures[i] for j, i in part]).to(self.device)
                    with only_read(name, images):
                        scores = reward.score(images, [jobs[j].prompts[i] for j, i in part])
                    for (j, i), value in zip(part, scores.float().tolist(), strict=True):
                        found[j][name][i] = value
        return found


def by_size(places: Iterable[tuple[int, int]], jobs: Sequence[Job]) -> Iterable[list[tuple[int, int]]]:
    """(job, picture) pairs whose pictures can be stacked, in their order."""
    groups: dict[torch.Size, list[tuple[int, int]]] = {}
    for j, i in places:
        groups.setdefault(jobs[j].pictures[i].shape, []).append((j, i))
    return groups.values()
