"""A run's plan as one object: the peaks of each memory plan, the cost, the advice; as data and as a table."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..choices import AUTO
from ..settings.config import Config
from . import advice, models, rewards
from .advice import GIB
from .cards import Card, nearest
from .config import check_vram
from .phases import PHASES
from .predictions import Prediction, fastest, predictions


@dataclass(frozen=True)
class Report:
    """What `plan` found."""

    config: Config
    predictions: tuple[Prediction, ...]
    vram: float | None = None  # GiB of the card in question
    card: Card | None = None  # whose speed counts

    @property
    def chosen(self) -> Prediction | None:
        """The fastest counted plan that fits the card; None if no card is in question."""
        return fastest(self.predictions, self.vram, self.card) if self.vram else None

    @property
    def rollout_batch(self) -> int | None:
        """As many fit beside the chosen plan, if that is left to the planner."""
        return self.chosen.rollout_batch if self.chosen else None

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
            settings += ", model.keep_inputs = true" if self.chosen.keeps else ""
            return f"{self.vram:g} GiB: {self.chosen.name} is the fastest that fits ({settings})"
        least = min(p.device for p in self.predictions if not p.estimated) / GIB + advice.RESERVE
        remedy = advice.lower(self.config, plans=False)
        return f"{self.vram:g} GiB: no plan fits, the smallest needs {least:.1f} GiB. Lower {remedy}"

    @property
    def notes(self) -> list[str]:
        s, g, run = self.config.sampling, self.config.grpo, self.config.run
        width, height = s.largest
        drawn = "as many as fit" if self.vram and run.rollout_batch == AUTO else run.drawn_at_once
        return [
            f"{models.describe(self.config.model.path)}, {width} x {height}, micro-batch {run.micro_batch} "
            f"({drawn} in the rollout), "
            f"rank {self.config.lora.rank} on {self.config.lora.targets}, G {g.group_size}, B {g.anchors}, "
            f"K {self.config.trained_steps}, {s.steps} steps",
            f"GiB at the peak of each phase; leave {advice.RESERVE:g} GiB for the CUDA context and fragmentation",
            *([f"s: seconds of an iteration at the least, by the roofline of a {self.card}"] if self.card else []),
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
                    "rollout_batch": p.rollout_batch,
                    "keep_inputs": p.keeps or self.config.model.keep_inputs is True,
                    "estimated": p.estimated,
                    "device": p.device,
                    "host": p.host,
                    "seconds": p.seconds(self.card) or None,
                    "phases": {name: asdict(peak) for name, peak in p.peaks.items()},
                }
                for p in self.predictions
            ],
            "cost": asdict(advice.cost(self.config)),
            "vram": self.vram,
            "card": self.card and vars(self.card),
            "fits": self.chosen.name if self.chosen else None,
            "rollout_batch": self.rollout_batch,
            "advice": self.verdict,
        }

    def lines(self) -> list[str]:
        """The same for people: a Markdown table, and what it stands for."""
        head = ["plan", *PHASES, "device", "host", *(["s"] if self.card else [])]
        rows = [head, ["---"] * len(head)]
        for p in self.predictions:
            sizes = (*(p.peaks[name].device for name in PHASES), p.device, p.host)
            seconds = [f"{p.seconds(self.card):.1f}" if p.work else ""] if self.card else []
            rows.append([p.name, *(f"{size / GIB:.2f}" for size in sizes), *seconds])
        table = [f"| {' | '.join(row)} |" for row in rows]
        return [*table, "", *self.notes, *_cost_lines(self.config), *filter(None, [self.verdict])]


def plan(
    config: Config,
    vram: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
    card: Card | None = None,
) -> Report:
    """Predict every memory plan of a run; about 20 seconds each for FLUX.1-dev, and 15 for each micro-batch more.

    With a card in question, other micro-batches are predicted as well, if they are needed or faster.

    Args:
        vram: GiB of the card in question.
        progress: told the name of each plan before it is counted.
        card: whose speed counts; by default that of the card whose memory is nearest.
    """
    check_vram(vram)
    vram = card.memory if card and vram is None else vram
    if vram and card is None:
        card = nearest(vram)
    return Report(config, tuple(predictions(config, vram, card, progress)), vram, card)


def _cost_lines(config: Config) -> list[str]:
    c = advice.cost(config)
    extra = [f"{n} {what}" for n, what in ((c.recomputed, "recomputed"), (c.reference, "of the reference")) if n]
    beside = f" (and {', '.join(extra)})" if extra else ""
    return [
        f"an iteration: {c.rollout} evaluations of the transformer in the rollout, {c.update} trained{beside}",
        f"trained a sample: {c.per_sample:.2f}; SDE methods train {advice.SDE_EVALUATIONS}, here {c.sde_update}",
    ]
