"""What `model.memory = "auto"` means on a device: the first memory plan whose counted phases fit what is free."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..choices import AUTO
from ..models.storage.memory import MemoryPlan, sizes
from ..settings.config import Config
from . import models
from .advice import GIB, title
from .phases import FIXED, ROLLOUT, Peak, dtype_of, predict

log = logging.getLogger(__name__)

MARGIN = 1 / 16  # of what is free, for libraries' workspaces and the allocator's fragments
TENTHS = [n / 10 for n in range(11)]

Predict = Callable[[Config, MemoryPlan], Mapping[str, Peak]]


@dataclass(frozen=True)
class Choice:
    """How a run begins: its plan, and how many candidates are in the model at once."""

    plan: MemoryPlan
    micro_batch: int  # in the update
    rollout_batch: int
    keeps: bool = False  # whether the rollout keeps the blocks' inputs of the pairs


def choose(config: Config, free: int | None, predict: Predict = predict) -> Choice:
    """The plan that the settings name, or with "auto" the first that fits, the micro-batch halved before the next.

    That is bf16, then fp8, then fp8 with the least offload (of tenths, at least `model.offload`); the smallest of all
    if none fits. A count takes 20 seconds for FLUX.1-dev: what the first one shows to be too large is not counted.
    With `run.rollout_batch = "auto"` the rollout gets as many at once as fit beside the plan.

    Args:
        config: `model.dtype` is what it computes in, or "auto" for bfloat16.
        free: bytes that the run may take on its device; None if that does not count them, as the CPU.
        predict: counts the phases' peaks of a run under a plan.
    """
    model, run = config.model, config.run
    named = as_named(config)
    if free is None or AUTO not in (model.memory, run.rollout_batch, model.keep_inputs):
        return named
    room = free * (1 - MARGIN)
    if model.memory != AUTO:
        choice = rollout_beside(config, room, predict) if run.rollout_batch == AUTO else named
    else:
        choice = _first_that_fits(config, room, predict) or Choice(MemoryPlan("fp8", 1.0), 1, 1)
        fewer = choice.plan.offload > model.offload or choice.micro_batch < run.micro_batch
        words = title(choice.plan), choice.micro_batch, free / GIB
        told = log.warning if fewer else log.info
        told("model.memory = 'auto': %s with a micro-batch of %d, as %.1f GiB are free", *words)
    if run.rollout_batch == AUTO:
        log.info("run.rollout_batch = 'auto': %d candidates at once", choice.rollout_batch)
    return replace(choice, keeps=_keeps(config, choice, room, predict))


def as_named(config: Config) -> Choice:
    """What the settings say; what they leave to the planner is as on a device that counts no memory."""
    model, run = config.model, config.run
    plan = MemoryPlan("bf16" if model.memory == AUTO else model.memory, model.offload)
    return Choice(plan, run.micro_batch, run.drawn_at_once, model.keep_inputs is True)


def _keeps(config: Config, choice: Choice, room: float, predict: Predict) -> bool:
    """Whether the blocks' inputs of all pairs fit as well, or are asked for."""
    asked = config.model.keep_inputs
    if isinstance(asked, bool) or not config.model.checkpointing:
        return asked is True
    precision = "fp8" if choice.plan.precision == "nf4" else choice.plan.precision  # 4 bits are counted as 8
    kept = replace(config, model=replace(config.model, keep_inputs=True))
    peaks = _peaks(kept, replace(choice, plan=MemoryPlan(precision, choice.plan.offload)), predict)
    if max(peaks.values()) > room:
        return False
    log.info("model.keep_inputs = 'auto': there is room for the blocks' inputs of all pairs")
    return True


def drawn_at_once(config: Config) -> list[int]:
    """How many candidates the rollout may take at once, descending: parts that are as equal as can be."""
    if not isinstance(config.run.rollout_batch, str):
        return [config.run.rollout_batch]
    candidates = config.grpo.prompts_per_iteration * config.grpo.group_size
    return sorted({-(-candidates // parts) for parts in range(1, candidates + 1)}, reverse=True)


def rollout_beside(config: Config, room: float, predict: Predict = predict) -> Choice:
    """The plan that the settings name, with as many at once in the rollout as fit, or as the update has if none do.

    Args:
        room: bytes for the run on its device.
    """
    model, size = config.model, config.run.micro_batch
    counted = "fp8" if model.memory == "nf4" else model.memory  # 4 bits are counted as 8: they do not run on `meta`
    choice = Choice(MemoryPlan(counted, model.offload), size, drawn_at_once(config)[0])
    weights = sizes(models.transformer(model.path), dtype_of(config)).get(choice.plan, 0)  # at least
    found = _with_less_drawn(config, choice, _peaks(config, choice, predict), weights, room, predict)
    drawn = found.rollout_batch if found else size
    return Choice(MemoryPlan(model.memory, model.offload), size, drawn)


def _first_that_fits(config: Config, room: float, predict: Predict) -> Choice | None:
    weights = sizes(models.transformer(config.model.path), dtype_of(config))
    base: tuple[Choice, Mapping[str, int]] | None = None
    for choice in _choices(config):
        expected = weights[choice.plan] if base is None else _expected(choice, *base, weights)
        if expected > room:
            continue
        peaks = _peaks(config, choice, predict)
        found = None
        if max(peak for phase, peak in peaks.items() if phase != ROLLOUT) <= room:
            found = _with_less_drawn(config, choice, peaks, weights[choice.plan], room, predict)
        if found:
            return found
        base = base or (choice, peaks)
    return None


def _with_less_drawn(
    config: Config, choice: Choice, peaks: Mapping[str, int], weights: int, room: float, predict: Predict
) -> Choice | None:
    """The choice with as many at once in the rollout as fit; None if one is too many.

    Args:
        peaks: of the choice. A rollout of fewer takes at least its share of what that one takes above the weights.
    """
    above, first = peaks[ROLLOUT] - weights, choice.rollout_batch
    for size in drawn_at_once(config):
        if size == first:
            fits = peaks[ROLLOUT] <= room
        else:
            least = weights + above * size / first
            smaller = replace(choice, rollout_batch=size)
            fits = least <= room and _peaks(config, smaller, predict)[ROLLOUT] <= room
        if fits:
            return replace(choice, rollout_batch=size)
    return None


def _choices(config: Config) -> Iterator[Choice]:
    """From the fastest to the smallest. An offloaded run waits for copies: fewer at once would make it wait more."""
    size, least, drawn = config.run.micro_batch, config.model.offload, drawn_at_once(config)[0]
    if not least:
        yield from (Choice(MemoryPlan(), n, drawn) for n in _halved(size))
    yield from (Choice(MemoryPlan("fp8", least), n, drawn) for n in _halved(size))
    yield from (Choice(MemoryPlan("fp8", share), size, drawn) for share in TENTHS if share > least)
    yield from (Choice(MemoryPlan("fp8", 1.0), n, drawn) for n in _halved(size)[1:])


def _halved(size: int) -> list[int]:
    return [size] if size == 1 else [size, *_halved(-(-size // 2))]


def _peaks(config: Config, choice: Choice, predict: Predict) -> dict[str, int]:
    """Bytes on the device at the peak of each phase; the text encoders, which choose for themselves, are gone."""
    run = replace(config.run, micro_batch=choice.micro_batch, rollout_batch=choice.rollout_batch)
    peaks = predict(replace(config, run=run), choice.plan)
    return {phase: peak.device for phase, peak in peaks.items() if phase != "encode"}


def _expected(choice: Choice, base: Choice, peaks: Mapping[str, int], weights: Mapping[MemoryPlan, int]) -> float:
    """The largest phase, at least, by what was counted for another choice: other weights, and as if all that is above
    them were the micro-batch's. The rollout takes as many at once as fit."""
    level, share = weights[base.plan], min(1.0, choice.micro_batch / base.micro_batch)
    others = {phase: peak - level for phase, peak in peaks.items() if phase != ROLLOUT}
    return weights[choice.plan] + max(above * (1 if phase in FIXED else share) for phase, above in others.items())
