"""`python -m trainer experiment NAME`: what is learnt under which settings, at equal time, over several seeds."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ..errors import ConfigError
from ..experiments.catalogue import EXPERIMENTS, Experiment
from ..experiments.tasks import TASKS, Task
from .output import note, print_json, say

MEASUREMENTS = ("solver", "exploration")  # modules of experiments/ that compare no runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=[*EXPERIMENTS, *MEASUREMENTS])
    parser.add_argument("--task", action="append", choices=TASKS, help="default: the experiment's own")
    parser.add_argument(
        "--config", type=Path, help="any other task: its prompts are trained on, those of its evaluation tested"
    )
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--budget", type=float, help="seconds of training of each run; default: the experiment's")
    parser.add_argument("--out", type=Path, default=Path("experiments"), help="folder of table, picture and text")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all runs")
    parser.add_argument("--quick", action="store_true", help="one seed, one rate, a few iterations: does it work?")


def main(arguments: argparse.Namespace) -> int:
    seeds = seeds_of(arguments.seeds)[: 1 if arguments.quick else None]
    tasks = [Task(arguments.config.stem, arguments.config)] if arguments.config else []
    tasks += [TASKS[name] for name in arguments.task or ()]
    if not tasks:
        tasks = [TASKS[name] for name in tasks_of(arguments.name)]
    if arguments.quick:
        tasks = [replace(task, pictures=1) for task in tasks]
    for task in tasks:
        task.config(arguments.set)  # a mistake is answered at once

    import torch

    torch.set_num_threads(1)  # seconds of one thread can be compared, whatever else the machine does
    arguments.out.mkdir(parents=True, exist_ok=True)
    does = compare if arguments.name in EXPERIMENTS else measure
    text = does(arguments, tasks, seeds)
    (arguments.out / f"{arguments.name}.md").write_text(text, "utf-8")
    if arguments.json:
        print_json({"experiment": arguments.name, "table": str(table_of(arguments)), "text": text})
    else:
        say(text)
    return 0


def tasks_of(name: str) -> Sequence[str]:
    return EXPERIMENTS[name].tasks if name in EXPERIMENTS else Experiment.tasks


def table_of(arguments: argparse.Namespace) -> Path:
    return arguments.out / f"{arguments.name}.csv"


def compare(arguments: argparse.Namespace, tasks: Sequence[Task], seeds: Sequence[int]) -> str:
    """The arms that are not in the table yet, and what all of them say."""
    from ..experiments import figure, sooner, summary
    from ..experiments.trials import Plan, run

    experiment, path = EXPERIMENTS[arguments.name], table_of(arguments)
    budget, marks = arguments.budget or experiment.budget, experiment.marks
    if arguments.quick:
        arms = [replace(arm, rates=(arm.rates or tasks[0].rates)[:1], marks=0) for arm in experiment.arms]
        experiment, budget, marks = replace(experiment, arms=arms), 1.0, 1
    plan = Plan(tasks, seeds, budget, marks, arguments.set)
    rows = run(experiment, plan, path, lambda *named: note(" ".join(map(str, named))))
    try:
        figure.draw(rows, arguments.name, path.with_suffix(".png"))
    except ImportError:
        note("no picture: pip install matplotlib")
    found = summary.results(rows)
    return f"{summary.paragraph(experiment.question, rows)} {sooner.in_words(rows, found)}\n\n{summary.table(found)}\n"


def measure(arguments: argparse.Namespace, tasks: Sequence[Task], seeds: Sequence[int]) -> str:
    """A measurement on each task: all of its table anew."""
    from ..experiments.bench import Bench
    from ..experiments.measured import joined

    done = import_module(f"..experiments.{arguments.name}", __package__)
    tables = {
        task.name: done.measure(Bench(task, tuple(arguments.set)), seeds, quick=arguments.quick) for task in tasks
    }
    table = joined(tables)
    table.write(table_of(arguments))
    return f"{table.text}\n\n{table.markdown()}\n"


def seeds_of(text: str) -> list[int]:
    """Raises ConfigError if they are no numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}: numbers with commas between them are needed, as 0,1,2") from None
