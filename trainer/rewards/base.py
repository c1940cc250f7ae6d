"""Stage 4: what a reward is, and the scores of several."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from ..device import is_out_of_memory
from ..errors import brief
from .errors import RewardError

DTYPES = ("auto", "float32", "bfloat16", "float16")
TOLERANCE = 1e-3  # below 0 and above 1, as rounding and resizing leave it
# what anybody's reward may raise; ComfyUI's Cancel and a run's stop are none of these
OWN_FAULTS = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, ImportError)


class Reward(Protocol):
    """Scores pictures. Any object with this method is a reward; larger is better."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images [N, 3, H, W] float32 in [0, 1] and the N prompts they were made from -> scores [N]."""
        ...


@contextmanager
def on_device(rewards: Iterable[Reward], device: str | torch.device, *, stay: bool) -> Iterator[None]:
    """The models of `rewards` are on `device` inside; then they stay there, or wait in host memory."""
    rewards = list(rewards)
    try:
        move(rewards, device)  # which may run out of room half-way
        yield
    finally:
        if not stay:
            move(rewards, "cpu")


def move(rewards: Iterable[Reward], device: str | torch.device) -> None:
    """Take what has a model (a method `to`) to `device`."""
    for reward in rewards:
        if hasattr(reward, "to"):
            reward.to(device)


@contextmanager
def looked_at(reward: Reward, look: Callable[[], None]) -> Iterator[None]:
    """`look` is called many times a second while `reward` waits for a server; what it raises ends the waiting.

    For a reward with a `server` (see `transport.Server`); the others wait for nobody.
    """
    server: Any = getattr(reward, "server", None)
    if not hasattr(server, "while_waiting"):
        yield
        return
    before, server.while_waiting = server.while_waiting, look
    try:
        yield
    finally:
        server.while_waiting = before


def score_all(rewards: Mapping[str, Reward], images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Scores [N] of each reward, float32, on the pictures' device, wherever a reward answers.

    A score may be NaN: its group is then left out of the training.

    Raises:
        RewardError: no pictures [N, 3, H, W] in [0, 1], another number of prompts, or a reward that gives no [N].
    """
    check_images(images, prompts)
    return {name: scores_of(name, reward, images, prompts) for name, reward in rewards.items()}


def scores_of(name: str, reward: Reward, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """One reward's scores [N] of checked pictures, float32, on their device.

    Raises:
        RewardError: it gives no [N], writes into the pictures, or fails in a way that is not known to this project,
            which is logged.
    """
    try:
        with only_read(name, images):
            values = reward.score(images, prompts)
    except OWN_FAULTS as error:
        if is_out_of_memory(error):
            raise
        logging.getLogger("fault").error("the reward %r failed", name, exc_info=True)
        why = f"{type(error).__name__}: {brief(str(error))}" if str(error) else type(error).__name__
        raise RewardError(f"the reward {name!r} failed ({why}): mend it, then go on with the run") from error
    if not isinstance(values, Tensor):
        raise RewardError(f"the reward {name!r} gave {brief(values)}, must be a tensor of [{len(images)}] scores")
    values = values.to(images.device, torch.float32)
    if values.shape != (len(images),):
        raise RewardError(f"reward {brief(name)} gave scores of shape {list(values.shape)}, must be [{len(images)}]")
    return values


@contextmanager
def only_read(name: str, images: Tensor) -> Iterator[None]:
    """Inside, the reward called `name` must leave `images` as they are: other rewards and the run's tiles share them.

    torch counts its own writes. On the CPU, where numpy writes into the same memory, the numbers are compared too. A
    foreign kernel's writes on a GPU stay unnoticed, and any in inference mode there.

    Raises:
        RewardError: they were written to, even if what was inside failed.
    """
    before = images.clone() if images.device.type == "cpu" else None
    version = _version(images)
    try:
        yield
    finally:
        if _version(images) != version or not (before is None or torch.equal(before, images)):
            raise RewardError(f"reward {name!r} writes into the pictures that others see too: give it images.clone()")


def _version(tensor: Tensor) -> int:
    """How often torch wrote into its memory, through any view; always 0 in inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


def check_images(images: Tensor, prompts: Sequence[str]) -> None:
    """Raises RewardError with the value that does not fit: shape, type, a number that is not finite, the range."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise RewardError(f"pictures of shape {list(images.shape)} cannot be scored: must be [N, 3, height, width]")
    if not images.is_floating_point():
        raise RewardError(f"pictures of type {images.dtype} cannot be scored: must be floating point, from 0 to 1")
    if len(prompts) != len(images):
        raise RewardError(f"{len(images)} pictures but {len(prompts)} prompts: each picture needs its own prompt")
    if images.is_meta:  # a prediction: there are no numbers
        return
    # one pass and one wait for the device; NaN and infinity come through
    low, high = torch.stack(images.aminmax()).tolist()
    if not -TOLERANCE <= low <= high <= 1 + TOLERANCE:
        raise RewardError(_misfit(images, low, high))


def _misfit(images: Tensor, low: float, high: float) -> str:
    broken = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        value = images[broken[0]][~images[broken[0]].isfinite()][0].item()
        return f"picture {broken[0]} has a pixel of {value}: the model that drew it ran out of range, lower its rate"
    return f"pictures from {low:.4g} to {high:.4g} cannot be scored: must be from 0 to 1"


def pick_dtype(name: str, device: str) -> torch.dtype:
    """The dtype of a reward's model. "auto" is float32 on the CPU and float16 elsewhere.

    float16 and not bfloat16: scores of a group differ in their third digit, and bfloat16 has no more than that.
    """
    if name not in DTYPES:
        raise RewardError(f"dtype must be one of {', '.join(DTYPES)}, got {brief(name)}")
    if name == "auto":
        name = "float32" if torch.device(device).type == "cpu" else "float16"
    return getattr(torch, name)
