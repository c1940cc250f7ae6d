"""The runs of an experiment, one after the other; those that are in its file already are not done again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..settings.config import Config
from .bench import Bench, Mark
from .catalogue import Arm, Experiment
from .sheet import Row, add, read
from .summary import best
from .tasks import Task

OnTrial = Callable[[str, str, float, int], None]


@dataclass(frozen=True)
class Plan:
    """Which runs, and how long."""

    tasks: Sequence[Task]
    seeds: Sequence[int]
    budget: float
    marks: int
    overrides: Sequence[str] = ()  # of all runs


def run(experiment: Experiment, plan: Plan, path: Path, on_trial: OnTrial) -> list[Row]:
    """Do what is missing in `path`, and return all rows of the experiment."""
    for task in plan.tasks:
        bench = None
        for seed in plan.seeds:
            for arm in experiment.arms:
                for rate in rates_of(arm, task, read(path), plan.seeds[0], seed):
                    if (task.name, arm.name, rate, seed) in {row.run for row in read(path)}:
                        continue
                    bench = bench or Bench(task, tuple(plan.overrides))
                    on_trial(task.name, arm.name, rate, seed)
                    add(path, trial(bench, arm, rate, seed, experiment, plan))
    return read(path)


def rates_of(arm: Arm, task: Task, rows: Sequence[Row], first: int, seed: int) -> Sequence[float]:
    """All learning rates at the first seed, and at the others the one that was best there."""
    rates = arm.rates or task.rates
    if seed == first:
        return rates
    mine = [row for row in rows if (row.task, row.arm, row.seed) == (task.name, arm.name, first) and row.rate in rates]
    return [best(mine).rate]


def trial(bench: Bench, arm: Arm, rate: float, seed: int, experiment: Experiment, plan: Plan) -> list[Row]:
    overrides = [*arm.overrides, f"optimizer.learning_rate={rate}"]
    marks = bench.run(overrides, seed, plan.budget, plan.marks, steps=experiment.tested_at, noise=arm.noise)
    return [row(bench.config, arm, rate, seed, n, mark, bench.task.name) for n, mark in enumerate(marks, 1)]


def row(config: Config, arm: Arm, rate: float, seed: int, number: int, mark: Mark, task: str) -> Row:
    trained, held_out = labels(config)
    one, other = (
        next(d for name, d in mark.differences.items() if name.split("@")[0] == label) for label in (trained, held_out)
    )
    further = {name: d.difference for name, d in mark.differences.items() if "@" in name}
    return Row(
        task,
        arm.name,
        rate,
        seed,
        number,
        mark.iterations,
        mark.seconds,
        one.difference,
        one.standard_error,
        other.difference,
        other.standard_error,
        one.before,
        {**mark.metrics, **further},
    )


def labels(config: Config) -> tuple[str, str]:
    """The first reward that is trained on, and the first that is not; the same one if there is none."""
    trained = next(r.label for r in config.rewards if not r.held_out)
    return trained, next((r.label for r in config.rewards if r.held_out), trained)
