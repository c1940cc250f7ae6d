"""What a run tells its listeners: the terminal, the run store, and whoever else subscribes to `on_event`."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Started:
    iteration: int  # the first one to come
    iterations: int  # of the whole run


@dataclass(frozen=True)
class IterationDone:
    """One iteration, measured. Tensors are on the CPU, but for the images."""

    iteration: int  # from 0
    metrics: dict[str, float]
    prompts: list[str]  # P
    seeds: list[int]  # P, of each prompt's neighborhood
    scores: dict[str, Tensor]  # [P, G] of each reward, held-out ones too
    advantages: Tensor  # A', [P, G]
    anchors: Tensor  # [P, G] bool
    images: Tensor  # [P * G, 3, H, W] in [0, 1]


@dataclass(frozen=True)
class Skipped:
    iteration: int
    reason: str


@dataclass(frozen=True)
class Waiting:
    """A reward does not answer. Everything done so far is saved; the candidates are kept, to be scored later."""

    iteration: int
    reason: str


@dataclass(frozen=True)
class Resumed:
    """The reward answers again."""

    iteration: int
    seconds: float  # that it took


@dataclass(frozen=True)
class Saved:
    iteration: int  # iterations done
    lora: str  # path of the exported file


@dataclass(frozen=True)
class Finished:
    iteration: int  # iterations done
    reason: str  # "complete", "stopped" or "gave up: ..."


Event = Started | IterationDone | Skipped | Waiting | Resumed | Saved | Finished
Listener = Callable[[Event], None]
