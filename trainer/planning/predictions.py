"""What each memory plan of a run needs, at the config's micro-batch and at others that suit a card better."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ..choices import AUTO
from ..models.storage.memory import MemoryPlan, sizes
from ..models.storage.modulation import modulators
from ..settings.config import Config
from . import advice, models, roofline
from .cards import Card
from .choice import drawn_at_once
from .kernels import Work
from .phases import FIXED, ROLLOUT, Peak, Planned

# a weight in 4 bits: bitsandbytes has a scale in 8 bits for each 64 of them, and one in float32 for each 256 scales
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
EQUAL = 1.01  # times the fastest's seconds: a larger micro-batch for less gains nothing


@dataclass(frozen=True)
class Prediction:
    """The peaks of one memory plan, by phase."""

    plan: MemoryPlan
    peaks: Mapping[str, Peak]
    estimated: bool = False  # by arithmetic, not by a count
    micro_batch: int | None = None  # if it is another than the config's
    rollout_batch: int | None = None  # as many fit, if that is left to the planner
    keeps: bool = False  # the rollout keeps the blocks' inputs, which was left to the planner
    work: Mapping[str, Work] = field(default_factory=dict)  # the kernels of each phase; none of an estimate

    @property
    def name(self) -> str:
        other = f", micro-batch {self.micro_batch}" if self.micro_batch else ""
        kept = ", inputs kept" if self.keeps else ""
        return advice.title(self.plan) + other + kept + (" (estimate)" if self.estimated else "")

    @property
    def device(self) -> int:
        """Bytes on the device in the largest phase."""
        return max(peak.device for peak in self.peaks.values())

    @property
    def host(self) -> int:
        return max(peak.host for peak in self.peaks.values())

    def seconds(self, card: Card | None) -> float:
        """Of an iteration at the least; 0 if no card is in question, or of an estimate."""
        return roofline.seconds(roofline.iteration(self.work), card) if card and self.work else 0.0


def fastest(counted: Iterable[Prediction], vram: float, card: Card | None) -> Prediction | None:
    """Of those that fit a card of `vram` GiB the first that is as good as the fastest."""
    fitting = [p for p in counted if advice.fits(p.device, vram) and not p.estimated]
    least = min((p.seconds(card) for p in fitting), default=0.0)
    return next((p for p in fitting if p.seconds(card) <= EQUAL * least), None)


def predictions(
    config: Config, vram: float | None, card: Card | None, progress: Callable[[str], None]
) -> Iterator[Prediction]:
    """Every memory plan; for a card of `vram` GiB with other micro-batches too, see `_others`, and `_kept`."""
    for plan in advice.candidates(config):
        progress(advice.title(plan))
        planned = Planned(config, plan)
        first = _counted(planned, config.run.micro_batch, vram)
        yield first
        if plan == MemoryPlan("fp8"):
            yield Prediction(MemoryPlan("nf4"), _narrowed(config, first.peaks), estimated=True)
        if vram and card:
            others = list(_others(planned, first, vram, card, progress))
            yield from others
            yield from _kept(planned, fastest([first, *others], vram, card), progress)


def _counted(planned: Planned, micro_batch: int, vram: float | None) -> Prediction:
    """With as many at once in the rollout as fit, if that is left to the planner and a card is in question."""
    config = planned.setup.config
    run = replace(config.run, micro_batch=micro_batch)
    left = vram is not None and run.rollout_batch == AUTO and advice.fits(planned.loaded, vram)
    for drawn in drawn_at_once(config) if left else [run.drawn_at_once]:
        measured = planned.measure(micro_batch, drawn)
        if vram is None or advice.fits(measured.peaks[ROLLOUT].device, vram):
            break
    return Prediction(
        planned.plan,
        measured.peaks,
        micro_batch=None if micro_batch == config.run.micro_batch else micro_batch,
        rollout_batch=drawn if left else None,
        work=measured.work,
    )


def _others(
    planned: Planned, last: Prediction, vram: float, card: Card, progress: Callable[[str], None]
) -> Iterator[Prediction]:
    """The plan with half the micro-batch until it fits, or twice as much as long as it fits and is faster."""
    config = planned.setup.config
    size, pairs = config.run.micro_batch, advice.cost(config).update // config.grpo.updates_per_rollout
    growing = advice.fits(last.device, vram)
    while (_too_wide(last, vram) and size > 1) or (growing and size < pairs):
        size = min(2 * size, pairs) if growing else -(-size // 2)
        progress(f"{advice.title(planned.plan)}, micro-batch {size}")
        before, last = last, _counted(planned, size, vram)
        yield last
        growing = growing and advice.fits(last.device, vram) and last.seconds(card) < before.seconds(card)


def _kept(planned: Planned, fitting: Prediction | None, progress: Callable[[str], None]) -> Iterator[Prediction]:
    """What fits, with the blocks' inputs of all pairs kept as well, if that is left to the planner."""
    config = planned.setup.config
    if fitting and config.model.keep_inputs == AUTO and config.model.checkpointing:
        kept = replace(fitting, keeps=True)
        progress(kept.name)
        sizes = kept.micro_batch or config.run.micro_batch, kept.rollout_batch or config.run.drawn_at_once
        measured = planned.measure(*sizes, keeps=True)
        yield replace(kept, peaks=measured.peaks, work=measured.work)


def _too_wide(prediction: Prediction, vram: float) -> bool:
    """Whether it would fit the card but for the phases that the micro-batch counts in."""
    fixed = max(prediction.peaks[name].device for name in FIXED)
    return advice.fits(fixed, vram) and not advice.fits(prediction.device, vram)


def _narrowed(config: Config, peaks: Mapping[str, Peak]) -> dict[str, Peak]:
    """The peaks of fp8 as they would be with 4-bit weights in the blocks, which do not run without CUDA.

    Weights that wait in host memory are no 4-bit ones, and take two bytes.
    """
    path = config.model.path
    encoders = sum(map(_of_blocks, models.text_encoders(path)))
    transformer = models.transformer(path)
    in_blocks, waiting = _of_blocks(transformer), sum(m.weight.numel() for m in modulators(transformer) if m.in_block)
    narrowed = {}
    for name, peak in peaks.items():
        device = peak.device - (encoders if name == "encode" else in_blocks) * (1 - NF4_BYTES)
        host = peak.host + (0 if name == "encode" else waiting)
        narrowed[name] = Peak(round(device), host)
    return narrowed


def _of_blocks(module: nn.Module) -> int:
    """Weights of the linear layers that a memory plan is about."""
    needed = sizes(module, torch.bfloat16)
    return needed[MemoryPlan("fp8")] - needed[MemoryPlan("fp8", 1.0)]
