"""What a run tells its listeners: the terminal, the run store, and whoever else subscribes to `on_event`.

An event says itself: `str(event)` is its sentence, `event.state` the state that it brings the run into. What a listener
makes of an event besides (a row, a bar, a picture) is the listener's own. No torch is imported in here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RUNNING, PAUSED, WAITING = "running", "paused", "waiting"  # kinds of states of a run at work
# kinds of an Ending
COMPLETE, GAVE_UP, FAILED = "complete", "gave up", "failed"
STOPPED = "stopped"  # somebody wanted it: the run may go on, and has no end yet
CONCLUDED = "concluded"  # there was a reason, such as rewards that rise no more


def kind_of(state: str) -> str:
    """What stands before a state's explanation: "waiting" of "waiting: the reason"."""
    return state.partition(":")[0]


class Told:
    """What every event says of itself."""

    @property
    def state(self) -> str | None:
        """Of the run from now on, its kind first (see `kind_of`); None if the event leaves it as it was."""
        return None

    def __str__(self) -> str:
        """The event in a sentence, for a log and a terminal; empty if it has none."""
        return ""


@dataclass(frozen=True)
class Started(Told):
    iteration: int  # the first one to come
    iterations: int  # of the whole run

    state = RUNNING


@dataclass(frozen=True)
class SelfTested(Told):
    """Before the first iteration: how far the update's policy is from the rollout's, which it must be."""

    iteration: int
    ratio_error: float  # |rho - 1|
    velocity_error: float  # ||v - v_old|| / ||v_old||, the larger of the first and the last step's
    gradient_error: float  # share of the change promised for a small step of the LoRA that does not come
    cause: str  # of an error above its tolerance, empty below

    def __str__(self) -> str:
        found = (
            f"before the first update |rho - 1| is {self.ratio_error:.2g}, and velocities differ by "
            f"{self.velocity_error:.2g} of their size; the gradient misses its promise by {self.gradient_error:.2g}"
        )
        return f"{found}: {self.cause}" if self.cause else found


@dataclass(frozen=True)
class Probed(Told):
    """Before the first iteration: how far neighborhoods agree on what to change, at each strength."""

    iteration: int
    agreements: dict[float, float]  # mean cosine of two gradients by strength; nan if nothing differed
    strength: float  # where they agree most

    def __str__(self) -> str:
        told = ", ".join(f"{s:g}: {value:.3f}" for s, value in self.agreements.items())
        return f"strength {self.strength:g}, where neighborhoods agree most on what to change ({told})"


@dataclass(frozen=True)
class Drawn(Told):
    """The candidates' pictures, before they are scored. An iteration that is cut short never gets an IterationDone."""

    iteration: int  # from 0
    prompts: list[str]  # P
    seeds: list[int]  # P, of each prompt's noise
    images: Tensor  # [P * G, 3, H, W] in [0, 1], on the device
    group_size: int  # G


@dataclass(frozen=True)
class IterationDone(Told):
    """One iteration, measured. Tensors are on the CPU, but for the images."""

    iteration: int  # from 0
    metrics: dict[str, float]
    prompts: list[str]  # P
    seeds: list[int]  # P, of each prompt's neighborhood
    scores: dict[str, Tensor]  # [P, G] of each reward, held-out ones too
    advantages: Tensor  # A', [P, G]
    anchors: Tensor  # [P, G] bool
    images: Tensor  # [P * G, 3, H, W] in [0, 1]
    distances: Tensor | None = None  # root mean squared difference of two candidates' final latents, [P, G, G]
    base: Tensor | None = None  # pictures of the base noises, [P, 3, H, W] in [0, 1], if they were drawn


@dataclass(frozen=True)
class Skipped(Told):
    iteration: int
    reason: str

    def __str__(self) -> str:
        return f"update skipped: {self.reason}"


@dataclass(frozen=True)
class Halved(Told):
    """A phase ran out of memory and is done again with half as many candidates at once, as all that follows."""

    iteration: int
    phase: str
    micro_batch: int  # from now on

    def __str__(self) -> str:
        return f"out of memory in {self.phase}: {self.micro_batch} at once from here on"


@dataclass(frozen=True)
class LetGo(Told):
    """A phase ran out of memory and is done again without the blocks' inputs, as all that follows."""

    iteration: int
    phase: str

    def __str__(self) -> str:
        return f"out of memory in {self.phase}: the rollout keeps no block inputs from here on"


@dataclass(frozen=True)
class Waiting(Told):
    """A reward does not answer. Everything done so far is saved; the candidates are kept, to be scored later."""

    iteration: int
    reason: str

    @property
    def state(self) -> str:
        return f"{WAITING}: {self.reason}"

    def __str__(self) -> str:
        return f"saved, and waiting: {self.reason}"


@dataclass(frozen=True)
class Resumed(Told):
    """The reward answers again."""

    iteration: int
    seconds: float  # that it took

    state = RUNNING

    def __str__(self) -> str:
        return f"went on after {self.seconds:.0f} s"


@dataclass(frozen=True)
class Paused(Told):
    """Someone asked for a pause. Everything done so far is saved."""

    iteration: int  # the next one

    state = PAUSED

    def __str__(self) -> str:
        return f"saved, and {self.state}"


@dataclass(frozen=True)
class Unpaused(Told):
    iteration: int
    seconds: float  # that the pause took

    state = RUNNING

    def __str__(self) -> str:
        return f"went on after a pause of {self.seconds:.0f} s"


@dataclass(frozen=True)
class Change:
    """Another learning rate or strength, from `iteration` on; None leaves one as it was."""

    iteration: int
    learning_rate: float | None = None
    strength: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what stays as it was."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in self.to_dict().items() if k != "iteration")


@dataclass(frozen=True)
class Changed(Told):
    """`change` holds from now on. A resumed run makes the changes of its first time again."""

    change: Change
    changes: tuple[Change, ...]  # of the whole run, this one and later ones of a first time included

    @property
    def iteration(self) -> int:
        return self.change.iteration

    def __str__(self) -> str:
        return f"changed: {self.change}"


@dataclass(frozen=True)
class Evaluated(Told):
    """Pictures of fixed prompts and seeds. Tensors are on the CPU."""

    iteration: int  # iterations done
    prompts: list[str]  # N
    seeds: list[int]  # N
    scores: dict[str, Tensor]  # [N] of each reward
    images: Tensor  # [N, 3, H, W] in [0, 1]

    def __str__(self) -> str:
        means = ", ".join(f"{name} {scores.mean():.4f}" for name, scores in self.scores.items())
        return f"{len(self.prompts)} pictures of the evaluation prompts: {means}"


@dataclass(frozen=True)
class Saved(Told):
    iteration: int  # iterations done
    lora: str  # path of the exported file


@dataclass(frozen=True)
class Ending:
    """What ended a run."""

    kind: str  # one of the five
    reason: str = ""  # in words; empty for the first two kinds

    def __str__(self) -> str:
        if self.kind == CONCLUDED:
            return self.reason
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


@dataclass(frozen=True)
class Finished(Told):
    iteration: int  # iterations done
    ending: Ending

    @property
    def state(self) -> str:
        """In words: "complete", "stopped", "stopped by <check>: ...", "gave up: ..." or "failed: ..."."""
        return str(self.ending)


Event = (
    Started
    | SelfTested
    | Probed
    | Drawn
    | IterationDone
    | Skipped
    | Halved
    | LetGo
    | Waiting
    | Resumed
    | Paused
    | Unpaused
    | Changed
    | Evaluated
    | Saved
    | Finished
)
Listener = Callable[[Event], None]
