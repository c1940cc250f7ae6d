"""A reward that does not answer holds a run up, and nothing more."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rewards import RewardUnavailable
from ..rewards.base import Reward, looked_at, move

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two questions; each pause is twice the one before
LOOK = 0.1  # seconds between two looks at whether to stop


@dataclass(frozen=True)
class Patient:
    """`reward`, asked again after `wait` if it was unavailable: the same pictures, and no other reward's.

    `look` is called many times a second while its server is waited for, and may raise to end that.
    """

    reward: Reward
    wait: Callable[[RewardUnavailable], None]
    look: Callable[[], None]

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        times = 0
        with looked_at(self.reward, self.look):
            while True:
                try:
                    return self.reward.score(images, prompts)
                except RewardUnavailable as unavailable:
                    unavailable.times = times
                    self.wait(unavailable)
                    times += 1

    def to(self, device: str | torch.device) -> None:
        move([self.reward], device)


def patient(
    rewards: Mapping[str, Reward], wait: Callable[[RewardUnavailable], None], look: Callable[[], None]
) -> dict[str, Reward]:
    return {name: Patient(reward, wait, look) for name, reward in rewards.items()}


def wait_until_back(unavailable: RewardUnavailable, look: Callable[[], None]) -> float:
    """Ask at growing intervals until the reward is back; seconds it took. `look` may raise to end the waiting.

    One that comes back and fails again is asked as if it had never been back.
    """
    began, pause = time.monotonic(), min(FIRST_PAUSE * 2.0 ** min(unavailable.times, 10), LONGEST_PAUSE)
    while True:
        next_question = time.monotonic() + pause
        while time.monotonic() < next_question:
            look()
            time.sleep(LOOK)
        if unavailable.is_back():
            return time.monotonic() - began
        pause = min(2 * pause, LONGEST_PAUSE)
