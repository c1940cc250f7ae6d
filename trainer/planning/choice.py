"""What `model.memory = "auto"` means on a device: the first memory plan whose counted phases fit what is free."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..choices import AUTO
from ..models.storage.memory import MemoryPlan, sizes
from ..settings.config import Config
from . import models
from .advice import GIB, title
from .phases import FIXED, Peak, dtype_of, predict

log = logging.getLogger(__name__)

MARGIN = 1 / 16  # of what is free, for libraries' workspaces and the allocator's fragments
TENTHS = [n / 10 for n in range(11)]

Predict = Callable[[Config, MemoryPlan], Mapping[str, Peak]]


@dataclass(frozen=True)
class Choice:
    """How a run begins: its plan, and how many candidates are in the model at once."""

    plan: MemoryPlan
    micro_batch: int


def choose(config: Config, free: int | None, predict: Predict = predict) -> Choice:
    """The plan that the settings name, or with "auto" the first that fits, the micro-batch halved before the next.

    That is bf16, then fp8, then fp8 with the least offload (of tenths, at least `model.offload`); the smallest of all
    if none fits. A count takes 20 seconds for FLUX.1-dev: what the first one shows to be too large is not counted.

    Args:
        config: `model.dtype` is what it computes in, or "auto" for bfloat16.
        free: bytes that the run may take on its device; None if that does not count them, as the CPU.
        predict: counts the phases' peaks of a run under a plan.
    """
    model, size = config.model, config.run.micro_batch
    if model.memory != AUTO:
        return Choice(MemoryPlan(model.memory, model.offload), size)
    if free is None:
        return Choice(MemoryPlan("bf16", model.offload), size)
    room = free * (1 - MARGIN)
    choice = _first_that_fits(config, room, predict) or Choice(MemoryPlan("fp8", 1.0), 1)
    told = log.warning if choice.plan.offload > model.offload or choice.micro_batch < size else log.info
    words = title(choice.plan), choice.micro_batch, free / GIB
    told("model.memory = 'auto': %s with a micro-batch of %d, as %.1f GiB are free", *words)
    return choice


def _first_that_fits(config: Config, room: float, predict: Predict) -> Choice | None:
    weights = sizes(models.transformer(config.model.path), dtype_of(config))
    base: tuple[Choice, Mapping[str, int]] | None = None
    for choice in _choices(config):
        expected = weights[choice.plan] if base is None else _expected(choice, *base, weights)
        if expected > room:
            continue
        peaks = _peaks(config, choice, predict)
        if max(peaks.values()) <= room:
            return choice
        base = base or (choice, peaks)
    return None


def _choices(config: Config) -> Iterator[Choice]:
    """From the fastest to the smallest. An offloaded run waits for copies: fewer at once would make it wait more."""
    size, least = config.run.micro_batch, config.model.offload
    if not least:
        yield from (Choice(MemoryPlan(), n) for n in _halved(size))
    yield from (Choice(MemoryPlan("fp8", least), n) for n in _halved(size))
    yield from (Choice(MemoryPlan("fp8", share), size) for share in TENTHS if share > least)
    yield from (Choice(MemoryPlan("fp8", 1.0), n) for n in _halved(size)[1:])


def _halved(size: int) -> list[int]:
    return [size] if size == 1 else [size, *_halved(-(-size // 2))]


def _peaks(config: Config, choice: Choice, predict: Predict) -> dict[str, int]:
    """Bytes on the device at the peak of each phase; the text encoders, which choose for themselves, are gone."""
    run = replace(config.run, micro_batch=choice.micro_batch)
    peaks = predict(replace(config, run=run), choice.plan)
    return {phase: peak.device for phase, peak in peaks.items() if phase != "encode"}


def _expected(choice: Choice, base: Choice, peaks: Mapping[str, int], weights: Mapping[MemoryPlan, int]) -> float:
    """The largest phase, at least, by what was counted for another choice: other weights, and as if all that is above
    them were the micro-batch's."""
    level, share = weights[base.plan], min(1.0, choice.micro_batch / base.micro_batch)
    above = max((peak - level) * (1 if phase in FIXED else share) for phase, peak in peaks.items())
    return weights[choice.plan] + above
