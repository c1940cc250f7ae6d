"""The runs of an experiment, one after the other; those that are in its file already are not done again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..settings.config import Config
from .bench import Bench, Mark
from .catalogue import Arm, Experiment
from .fingerprint import fingerprint
from .sheet import Row, add, beside, read
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
    """Do what is missing in `path`, and return all rows of the experiment.

    A run that another experiment's table beside it has is taken from there.
    """
    for task in plan.tasks:
        bench = None
        for seed in plan.seeds:
            for arm in arms_of(experiment, task):
                for rate in rates_of(arm, task, known_rows(experiment, plan, path), plan.seeds[0], seed):
                    if (task.name, arm.name, rate, seed) in {row.run for row in known_rows(experiment, plan, path)}:
                        continue
                    found = taken(arm, task, rate, seed, settings_of(experiment, plan, task, arm), beside(path))
                    if not found:
                        bench = bench or Bench(task, tuple(plan.overrides))
                        on_trial(task.name, arm.name, rate, seed)
                        found = trial(bench, arm, rate, seed, experiment, plan)
                    add(path, found)
    return known_rows(experiment, plan, path)


def arms_of(experiment: Experiment, task: Task) -> list[Arm]:
    return [arm for arm in experiment.arms if not arm.tasks or task.name in arm.tasks]


def settings_of(experiment: Experiment, plan: Plan, task: Task, arm: Arm) -> str:
    """The fingerprint of an arm's runs."""
    config = task.config([*plan.overrides, *arm.overrides])
    further = (plan.budget, marks_of(arm, plan), list(experiment.tested_at), arm.noise, task.pictures, task.steps)
    return fingerprint(config, *further)


def known_rows(experiment: Experiment, plan: Plan, path: Path) -> list[Row]:
    """The rows of a table whose runs had the settings that their arms have now."""
    settings = {
        (task.name, arm.name): settings_of(experiment, plan, task, arm)
        for task in plan.tasks
        for arm in arms_of(experiment, task)
    }
    return [row for row in read(path) if settings.get((row.task, row.arm)) == row.settings]


def taken(arm: Arm, task: Task, rate: float, seed: int, settings: str, rows: Sequence[Row]) -> list[Row]:
    """The first run among the rows that is the same but for its arm's name."""
    same = [row for row in rows if (row.task, row.rate, row.seed, row.settings) == (task.name, rate, seed, settings)]
    return [replace(row, arm=arm.name) for row in same if row.arm == same[0].arm]


def rates_of(arm: Arm, task: Task, rows: Sequence[Row], first: int, seed: int) -> Sequence[float]:
    """All learning rates at the first seed, and at the others the one that was best there."""
    rates = arm.rates or task.rates
    if seed == first:
        return rates
    mine = [row for row in rows if (row.task, row.arm, row.seed) == (task.name, arm.name, first) and row.rate in rates]
    return [best(mine).rate]


def marks_of(arm: Arm, plan: Plan) -> int:
    return arm.marks or plan.marks


def trial(bench: Bench, arm: Arm, rate: float, seed: int, experiment: Experiment, plan: Plan) -> list[Row]:
    overrides = [*arm.overrides, f"optimizer.learning_rate={rate}"]
    count, settings = marks_of(arm, plan), settings_of(experiment, plan, bench.task, arm)
    marks = bench.run(overrides, seed, plan.budget, count, steps=experiment.tested_at, noise=arm.noise)
    names = (bench.task.name, arm.name, rate, seed, settings)
    return [row(bench.config, names, n, mark) for n, mark in enumerate(marks, 1)]


def row(config: Config, names: tuple[str, str, float, int, str], number: int, mark: Mark) -> Row:
    trained, held_out = labels(config)
    one, other = (
        next(d for name, d in mark.differences.items() if name.split("@")[0] == label) for label in (trained, held_out)
    )
    further = {name: d.difference for name, d in mark.differences.items() if "@" in name}
    return Row(
        *names,
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
