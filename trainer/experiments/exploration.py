"""Which noise explores better, at the beginning or at each step? By what the reward gains along the gradient."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..engine.drawing import Clock
from ..engine.grpo import collect, gradient, pairs_of
from ..engine.state import Setup
from .bench import Bench
from .measured import Table
from .summary import mean_of
from .tasks import preset

ARMS: Mapping[str, Sequence[str]] = {
    "initial noise, s 0.3": ["grpo.strength=0.3"],
    "initial noise, s 1": ["grpo.strength=1.0"],
    "step noise, Flow-GRPO": [preset("flow-grpo")],
    "step noise, DanceGRPO": [preset("dance-grpo")],
}
GROUPS = 24  # whose mean gradient is a direction
STEP = 0.02  # of the LoRA along it, in lengths of the LoRA's own beginning
PICTURES = 8  # of each tested prompt, at either end of the step


def measure(bench: Bench, seeds: Sequence[int], *, quick: bool = False) -> Table:
    """Each arm's gradient of several seeds: the expected reward's slope along it, and how alike its directions are.

    The slope along a unit direction is the true gradient's length times their cosine; so slopes compare as cosines do.
    """
    groups, pictures = (4, 1) if quick else (GROUPS, PICTURES)
    rows, lines = [], []
    for name, overrides in ARMS.items():
        found = [direction(bench, [*overrides, f"run.seed={seed}"], groups) for seed in seeds]
        rise = mean_of([slope(bench, d, pictures) for d in found], [0.0])
        alike = [float(a @ b) for i, a in enumerate(found) for b in found[:i]]
        rows.append((name, rise.value, rise.error, sum(alike) / len(alike) if alike else math.nan))
        lines.append(f"{name} {rise.value:+.2f} +- {rise.error:.2f}")
    text = f"Slope of the expected reward along the mean gradient of {groups} groups: {'; '.join(lines)}."
    return Table(("exploration", "slope", "error", "cosine of two seeds"), rows, text)


def direction(bench: Bench, overrides: Sequence[str], groups: int) -> Tensor:
    """Minus the gradient of `groups` groups at the untrained LoRA, as a unit vector."""
    config = bench.task.config([*bench.overrides, *overrides, "grpo.prompts_per_iteration=4"])
    setup = bench.setup(config)
    for iteration in range(-(-groups // 4)):
        group = collect(setup, iteration, Clock(setup.policy.device))
        pairs = pairs_of(setup, group, iteration)
        if len(pairs):
            loss = setup.objective.prepare(group.candidates.trajectories, group.advantages)
            gradient(setup, group.candidates, pairs, loss, setup.micro_batch.size)
    flat = torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in setup.lora.values()]
    )
    for p in setup.lora.values():
        p.grad = None
    return -flat / flat.norm()


def slope(bench: Bench, way: Tensor, pictures: int) -> float:
    """Change of the expected trained reward along a direction, a unit of the LoRA's length: a step to either side."""
    setup = bench.setup(bench.config)
    lora = list(setup.lora.values())
    length = torch.cat([p.detach().flatten() for p in lora]).norm() * STEP
    ends = []
    for side in (1, -1):
        move(lora, way, side * length)
        ends.append(expected(bench, setup, pictures))
        move(lora, way, -side * length)
    return (ends[0] - ends[1]) / (2 * STEP)


@torch.no_grad()
def move(lora: Sequence[Tensor], way: Tensor, by: Tensor) -> None:
    for p, part in zip(lora, way.split([p.numel() for p in lora]), strict=True):
        p.add_(part.view_as(p) * by)


def expected(bench: Bench, setup: Setup, pictures: int) -> float:
    """The mean trained reward of the tested prompts."""
    found = bench.pictures(bench.drawing(bench.steps, setup.lora), pictures)
    return sum(weight * found.scores[name].mean().item() for name, weight in bench.config.weights.items())
