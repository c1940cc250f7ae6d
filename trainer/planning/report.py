"""A run's plan as one object: the peaks of each memory plan, the cost, the advice; as data and as a table."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from ..choices import AUTO
from ..models.storage.memory import MemoryPlan, sizes
from ..models.storage.modulation import modulators
from ..settings.config import Config
from . import advice, models, rewards
from .advice import GIB
from .choice import rollout_beside
from .config import check_vram
from .phases import FIXED, PHASES, Peak, predict

# a weight in 4 bits: bitsandbytes has a scale in 8 bits for each 64 of them, and one in float32 for each 256 scales
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Prediction:
    """The peaks of one memory plan, by phase."""

    plan: MemoryPlan
    peaks: Mapping[str, Peak]
    estimated: bool = False  # by arithmetic, not by a count
    micro_batch: int | None = None  # if it is another than the config's

    @property
    def name(self) -> str:
        smaller = f", micro-batch {self.micro_batch}" if self.micro_batch else ""
        return advice.title(self.plan) + smaller + (" (estimate)" if self.estimated else "")

    @property
    def device(self) -> int:
        """Bytes on the device in the largest phase."""
        return max(peak.device for peak in self.peaks.values())

    @property
    def host(self) -> int:
        return max(peak.host for peak in self.peaks.values())


@dataclass(frozen=True)
class Report:
    """What `plan` found."""

    config: Config
    predictions: tuple[Prediction, ...]
    vram: float | None = None  # GiB of the card in question
    rollout_batch: int | None = None  # as many fit beside the chosen plan, if that is left to the planner

    @property
    def chosen(self) -> Prediction | None:
        """The first counted plan that fits the card."""
        fitting = (p for p in self.predictions if self.vram and advice.fits(p.device, self.vram))
        return next((p for p in fitting if not p.estimated), None)

    @property
    def verdict(self) -> str:
        """One line on the card that was asked about; empty if none was."""
        if not self.vram:
            return ""
        if self.chosen:
            p, size = self.chosen.plan, self.chosen.micro_batch
            settings = f'model.memory = "{p.precision}", model.offload = {p.offload}'
            settings += f", run.micro_batch = {size}" if size else ""
            settings += f", run.rollout_batch = {self.rollout_batch}" if self.rollout_batch else ""
            return f"{self.vram:g} GiB: {self.chosen.name} fits ({settings})"
        least = min(p.device for p in self.predictions if not p.estimated) / GIB + advice.RESERVE
        remedy = advice.lower(self.config, plans=False)
        return f"{self.vram:g} GiB: no plan fits, the smallest needs {least:.1f} GiB. Lower {remedy}"

    @property
    def notes(self) -> list[str]:
        s, g, run = self.config.sampling, self.config.grpo, self.config.run
        width, height = s.largest
        return [
            f"{models.describe(self.config.model.path)}, {width} x {height}, micro-batch {run.micro_batch} "
            f"({run.drawn_at_once} in the rollout), "
            f"rank {self.config.lora.rank} on {self.config.lora.targets}, G {g.group_size}, B {g.anchors}, "
            f"K {self.config.trained_steps}, {s.steps} steps",
            f"GiB at the peak of each phase; leave {advice.RESERVE:g} GiB for the CUDA context and fragmentation",
            *rewards.assumed(self.config.rewards),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; memory in bytes."""
        return {
            "notes": self.notes,
            "size": list(self.config.sampling.largest),
            "reserve": round(advice.RESERVE * GIB),
            "plans": [
                {
                    "name": p.name,
                    "memory": p.plan.precision,
                    "offload": p.plan.offload,
                    "micro_batch": p.micro_batch or self.config.run.micro_batch,
                    "estimated": p.estimated,
                    "device": p.device,
                    "host": p.host,
                    "phases": {name: asdict(peak) for name, peak in p.peaks.items()},
                }
                for p in self.predictions
            ],
            "cost": asdict(advice.cost(self.config)),
            "vram": self.vram,
            "fits": self.chosen.name if self.chosen else None,
            "rollout_batch": self.rollout_batch,
            "advice": self.verdict,
        }

    def lines(self) -> list[str]:
        """The same for people: a Markdown table, and what it stands for."""
        rows = [("plan", *PHASES, "device", "host"), ("---",) * (len(PHASES) + 3)]
        for p in self.predictions:
            sizes = (*(p.peaks[name].device for name in PHASES), p.device, p.host)
            rows.append((p.name, *(f"{size / GIB:.2f}" for size in sizes)))
        table = [f"| {' | '.join(row)} |" for row in rows]
        return [*table, "", *self.notes, *_cost_lines(self.config), *filter(None, [self.verdict])]


def plan(config: Config, vram: float | None = None, progress: Callable[[str], None] = lambda _: None) -> Report:
    """Predict every memory plan of a run; about ten seconds each for FLUX.1-dev.

    A plan that is too large for the card because of the micro-batch is predicted for smaller ones as well.

    Args:
        vram: GiB of the card in question.
        progress: told the name of each plan before it is counted.
    """
    check_vram(vram)
    report = Report(config, tuple(_predictions(config, vram, progress)), vram)
    if not (vram and report.chosen and config.run.rollout_batch == AUTO):
        return report
    progress(f"{report.chosen.name}: the rollout")
    chosen, size = report.chosen.plan, report.chosen.micro_batch or config.run.micro_batch
    model = replace(config.model, memory=chosen.precision, offload=chosen.offload)
    beside = replace(config, model=model, run=replace(config.run, micro_batch=size))
    found = rollout_beside(beside, (vram - advice.RESERVE) * GIB)
    return replace(report, rollout_batch=found.rollout_batch)


def _predictions(config: Config, vram: float | None, progress: Callable[[str], None]) -> Iterator[Prediction]:
    for candidate in advice.candidates(config):
        progress(advice.title(candidate))
        prediction = Prediction(candidate, predict(config, candidate))
        yield prediction
        if candidate == MemoryPlan("fp8"):
            yield Prediction(MemoryPlan("nf4"), _narrowed(config, prediction.peaks), estimated=True)
        if vram and _too_wide(prediction, vram):
            yield from _smaller(config, candidate, vram, progress)


def _too_wide(prediction: Prediction, vram: float) -> bool:
    """Whether it would fit the card but for the phases that the micro-batch counts in."""
    fixed = max(prediction.peaks[name].device for name in FIXED)
    return advice.fits(fixed, vram) and not advice.fits(prediction.device, vram)


def _smaller(
    config: Config, candidate: MemoryPlan, vram: float, progress: Callable[[str], None]
) -> Iterator[Prediction]:
    """The plan with half the micro-batch, until it fits."""
    size = config.run.micro_batch
    while size > 1:
        size = -(-size // 2)
        progress(f"{advice.title(candidate)}, micro-batch {size}")
        peaks = predict(replace(config, run=replace(config.run, micro_batch=size)), candidate)
        prediction = Prediction(candidate, peaks, micro_batch=size)
        yield prediction
        if advice.fits(prediction.device, vram):
            return


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


def _cost_lines(config: Config) -> list[str]:
    c = advice.cost(config)
    extra = [f"{n} {what}" for n, what in ((c.recomputed, "recomputed"), (c.reference, "of the reference")) if n]
    beside = f" (and {', '.join(extra)})" if extra else ""
    return [
        f"an iteration: {c.rollout} evaluations of the transformer in the rollout, {c.update} trained{beside}",
        f"trained a sample: {c.per_sample:.2f}; SDE methods train {advice.SDE_EVALUATIONS}, here {c.sde_update}",
    ]
