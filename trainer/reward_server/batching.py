"""Dynamic batching: requests that wait at the same time are scored together, by one worker thread."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import Refused
from ..rewards import RewardError
from ..rewards.base import Reward, only_read
from .stored import Pictures

log = logging.getLogger(__name__)
Scores = dict[str, list[float]]  # reward -> one score a picture
Place = tuple[int, int]  # of a picture: which job, and which of its pictures


@dataclass(eq=False)
class Job:
    """One request's pictures."""

    pictures: Pictures  # N
    prompts: Sequence[str]  # N
    rewards: Sequence[str]
    answer: "asyncio.Future[Scores]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    refused: Refused | None = None  # if a picture does not decode

    @property
    def over(self) -> bool:
        """Whether nobody waits for its scores any more."""
        return self.answer.done() or self.refused is not None


class Batcher:
    """Takes jobs on the event loop, scores them on its thread.

    Args:
        rewards: by name.
        batch_size: pictures scored at once. A batch is of whole jobs; a larger job is one of its own, scored in parts.
        batch_pixels: pixels decoded and scored at once; fewer pictures are, if they are large.
        window: seconds that a batch which is not full yet waits for more.
    """

    def __init__(
        self, rewards: Mapping[str, Reward], *, device: str, batch_size: int, batch_pixels: int, window: float
    ):
        self.rewards = rewards
        self.device = device
        self.batch_size = batch_size
        self.batch_pixels = batch_pixels
        self.window = window
        self.waiting: deque[Job] = deque()
        self.arrived = asyncio.Event()
        self.worker = ThreadPoolExecutor(1, "scoring")

    async def score(self, pictures: Pictures, prompts: Sequence[str], rewards: Sequence[str]) -> Scores:
        """Scores of one request. Cancelled, what is left of it is not scored, and its pictures are let go.

        Raises:
            RewardError: a reward refuses its pictures or prompts.
            Refused: a picture does not decode.
        """
        job = Job(pictures, prompts, rewards)
        self.waiting.append(job)
        self.arrived.set()
        try:
            return await job.answer
        finally:
            pictures.drop()

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
    def score_together(self, jobs: Sequence[Job]) -> list[Scores | Exception]:
        found: list[Scores] = [{name: [0.0] * len(job.pictures) for name in job.rewards} for job in jobs]
        for places in alike(jobs):
            j, i = places[0]
            (width, height), names = jobs[j].pictures.sizes[i], jobs[j].rewards
            at_once = min(self.batch_size, max(1, self.batch_pixels // (width * height)))
            for start in range(0, len(places), at_once):
                part, images = decoded(places[start : start + at_once], jobs, width, height)
                if not part:
                    continue
                images, prompts = images.to(self.device), [jobs[j].prompts[i] for j, i in part]
                for name in names:
                    with only_read(name, images):
                        scores = self.rewards[name].score(images, prompts)
                    for (j, i), value in zip(part, scores.float().tolist(), strict=True):
                        found[j][name][i] = value
                del images  # before the next are made
        return [job.refused or scores for job, scores in zip(jobs, found, strict=True)]


def alike(jobs: Sequence[Job]) -> Iterable[list[Place]]:
    """Places of pictures that are of one size and for the same rewards, in their order."""
    groups: dict[object, list[Place]] = {}
    for j, job in enumerate(jobs):
        for i, size in enumerate(job.pictures.sizes):
            groups.setdefault((size, tuple(job.rewards)), []).append((j, i))
    return groups.values()


def decoded(places: Sequence[Place], jobs: Sequence[Job], width: int, height: int) -> tuple[list[Place], Tensor]:
    """The pictures [N, 3, H, W] float32 of those of these places whose job is not over, and their places."""
    images, kept = torch.empty(len(places), 3, height, width), list[Place]()
    for j, i in places:
        job = jobs[j]
        if job.over:
            continue
        try:
            job.pictures.read(i, images[len(kept)])
            kept.append((j, i))
        except Refused as refused:
            job.refused = refused
    # one that did not decode leaves its job's others there, which are scored for nobody
    return kept, images[: len(kept)]
