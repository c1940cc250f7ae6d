"""How long a run goes on, what it stores, and what it draws to be looked at."""

import re
from dataclasses import dataclass

from ..choices import AUTO
from ..diagnosis import CHECKS
from ..texts import ESCAPED, has_control
from .described import Section, require, setting

KEEP = re.compile("auto|all|(newest|every) [1-9][0-9]{0,8}")
SEEDS = 2**64 - 1  # the largest: what torch takes, and ComfyUI's own nodes have


@dataclass(frozen=True)
class RunSettings(Section, section="run"):
    folder: str = setting("", "Where the run is stored. Empty: runs/ and the config file's name.", may_change=True)
    iterations: int = setting(
        300,
        "Rollouts, each followed by an update. 300 in the paper; the reward should rise earlier.",
        least=1,
        highest=100000,
        may_change=True,
    )
    seed: int = setting(
        0,
        "Every random choice of the training follows from it: a run can be repeated exactly.",
        least=0,
        most=SEEDS,
    )
    micro_batch: int = setting(
        4,
        "Candidates in the model at once. Memory depends on it and on the picture's size: it is halved if memory "
        "runs out.",
        least=1,
        highest=128,
    )
    rollout_batch: int | str = setting(
        AUTO,
        "Candidates in the model at once while they are drawn, which takes less memory than the update. auto: as many "
        "as the device has room for; on the CPU as in the update.",
        unit="candidate",
        least=1,
        highest=128,
        choices=(AUTO,),
        omit_default=True,
    )
    save_every: int = setting(
        10, "Iterations between checkpoints.", unit="iteration", least=1, highest=10000, may_change=True
    )
    tiles_every: int = setting(
        1, "Iterations between stored pictures; 0 stores none.", unit="iteration", least=0, may_change=True
    )
    keep_tiles: str = setting(
        AUTO,
        "Iterations whose pictures stay on disk: all, newest 500, or every 10 and the newest one. auto keeps all up to "
        "1 GiB; beyond it every second, fourth, ... of the older ones. Numbers and seeds always stay.",
        choices=(AUTO, "all"),
        others="newest N, or every N",
        may_change=True,
    )
    offload_rewards: bool = setting(
        False,
        "Reward models wait in the computer's memory while they do not score, and come one at a time. Saves their "
        "size on the GPU and costs a moment in each iteration.",
        may_change=True,
    )
    base_every: int = setting(
        10,
        "Iterations between pictures of the base noises themselves, if pictures are stored; 0 draws none.",
        unit="iteration",
        least=0,
        may_change=True,
    )
    stop_on: tuple[str, ...] = setting(
        (),
        "Problems that end the run if the diagnosis finds them; it is saved.",
        choices=tuple(CHECKS),
        may_change=True,
    )

    @property
    def drawn_at_once(self) -> int:
        """Candidates in the model at once in the rollout; with "auto", as long as nothing more is known to fit."""
        return self.micro_batch if isinstance(self.rollout_batch, str) else self.rollout_batch

    def check(self) -> None:
        remedy = "must be auto, all, or iterations such as 'newest 500' or 'every 10'"
        require(KEEP.fullmatch(self.keep_tiles) is not None, "run.keep_tiles", self.keep_tiles, remedy)
        require(not has_control(self.folder), "run.folder", self.folder, ESCAPED)


@dataclass(frozen=True)
class EvaluationSettings(Section, section="evaluation"):
    """Pictures of fixed prompts, to look at and to score: before the first iteration, after the last, and between."""

    prompts: tuple[str, ...] = setting(
        (),
        "Prompts to look at and to score, drawn from fixed seeds: a list of texts, or a file of them. The same prompt "
        "twice draws two pictures.",
        may_change=True,
    )
    every: int = setting(
        0,
        "Iterations between the evaluation's pictures; 0 draws the first and the last alone.",
        unit="iteration",
        least=0,
        highest=100000,
        may_change=True,
    )
