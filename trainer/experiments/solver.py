"""How far each solver is from the exact trajectory, and what it costs: on the task's own model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.drawing import solve
from ..engine.state import Setup
from ..stages.noise import base_noise
from ..stages.solvers import SOLVERS
from ..training.evaluate import UNSEEN
from .bench import Bench, Stopwatch
from .measured import Table

STEPS = (2, 4, 8, 16, 28)
REFERENCE = 200  # steps of Heun's solver
PICTURES = 24


@dataclass(frozen=True)
class Solved:
    solver: str
    steps: int
    evaluations: int
    error: float  # root mean square distance of x_0 to the reference's, relative to the spread of x_0
    seconds: float  # a picture


def measure(bench: Bench, seeds: Sequence[int], *, quick: bool = False) -> Table:
    """Every solver in STEPS steps. Nothing is drawn by lot: the seeds do not matter."""
    steps, reference, pictures = ((bench.steps,), 20, 4) if quick else (STEPS, REFERENCE, PICTURES)
    exact = drawn(bench.drawing(reference, {}), "heun", pictures)
    spread = exact.std(0).square().mean().sqrt()
    found = list(solved(bench, steps, exact, spread))
    rows = [(s.solver, s.steps, s.evaluations, s.error, s.seconds) for s in found]
    return Table(("solver", "steps", "evaluations", "error", "seconds"), rows, in_words(bench, found, reference))


def solved(bench: Bench, steps: Sequence[int], exact: Tensor, spread: Tensor) -> Iterator[Solved]:
    for count in steps:
        setup = bench.drawing(count, {})
        for name, solver in SOLVERS.items():
            watch = Stopwatch(bench.policy.device)
            with watch:
                x_0 = drawn(setup, name, len(exact))
            error = (x_0 - exact).square().mean().sqrt() / spread
            yield Solved(name, count, solver.evaluations(count), error.item(), watch.seconds / len(exact))


def drawn(setup: Setup, solver: str, pictures: int) -> Tensor:
    """x_0 of the tested prompts in turn, [N, *latent]."""
    if setup.evaluation is None:
        raise ValueError("evaluation.prompts = []: there is nothing to draw")
    rows = [n % len(setup.evaluation) for n in range(pictures)]
    noise = torch.stack([base_noise(setup.geometry.latent_shape, UNSEEN + n) for n in range(pictures)])
    return solve(setup, [0] * pictures, setup.evaluation[rows], noise, SOLVERS[solver]).x_0


def in_words(bench: Bench, found: Sequence[Solved], reference: int) -> str:
    """What the errors say, and how straight the flow is."""
    usual = bench.steps
    at = sorted((s for s in found if s.steps == usual), key=lambda s: s.error)
    told = ", ".join(f"{s.solver} {s.error:.3f} ({s.evaluations} calls)" for s in at)
    worst = max(s.error for s in at)
    verdict = (
        "the flow of this model is nearly straight, and its solvers are alike: it cannot tell which is better"
        if worst < 0.1
        else f"{at[0].solver} is nearest"
    )
    unit = f"Distance to {reference} steps of Heun's, in units of the pictures' spread"
    return f"{unit}, at {usual} steps: {told}; {verdict}."
