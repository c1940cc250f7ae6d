"""`python -m trainer experiment NAME`: what is learnt under which settings, at equal time, over several seeds."""

import argparse
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from ..experiments.catalogue import EXPERIMENTS
from ..experiments.tasks import TASKS, Task
from .output import note, print_json, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--task", action="append", choices=TASKS, help="default: the experiment's own, one or both")
    parser.add_argument(
        "--config", type=Path, help="any other task: its prompts are trained on, those of its evaluation tested"
    )
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--budget", type=float, help="seconds of training of each run; default: the experiment's")
    parser.add_argument("--out", type=Path, default=Path("experiments"), help="folder of table, picture and text")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all runs")
    parser.add_argument("--quick", action="store_true", help="one seed, one rate, a few iterations: does it work?")


def main(arguments: argparse.Namespace) -> int:
    experiment = EXPERIMENTS[arguments.name]
    seeds = seeds_of(arguments.seeds)
    if arguments.budget is not None:
        experiment = replace(experiment, budget=arguments.budget)
    if arguments.quick:
        arms = [replace(arm, rates=arm.rates[:1]) for arm in experiment.arms]
        experiment = replace(experiment, arms=arms, budget=1.0, marks=1)
        seeds = seeds[:1]
    tasks = [Task(arguments.config.stem, arguments.config)] if arguments.config else []
    tasks += [TASKS[name] for name in arguments.task or (() if tasks else experiment.tasks)]
    if arguments.quick:
        tasks = [replace(task, pictures=1) for task in tasks]

    import torch

    from ..experiments import figure, summary
    from ..experiments.trials import plan_of, run

    torch.set_num_threads(1)  # seconds of one thread can be compared, whatever else the machine does
    path = arguments.out / f"{arguments.name}.csv"
    plan = plan_of(experiment, tasks, seeds, arguments.set)
    rows = run(experiment, plan, path, lambda *named: note(" ".join(map(str, named))))
    text = f"{summary.paragraph(experiment.question, rows)}\n\n{summary.table(summary.results(rows))}\n"
    path.with_suffix(".md").write_text(text, "utf-8")
    try:
        figure.draw(rows, arguments.name, path.with_suffix(".png"))
    except ImportError:
        note("no picture: pip install matplotlib")
    if arguments.json:
        print_json({"experiment": arguments.name, "rows": len(rows), "table": str(path), "text": text})
    else:
        say(text)
    return 0


def seeds_of(text: str) -> list[int]:
    """Raises ConfigError if they are no numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}: numbers with commas between them are needed, as 0,1,2") from None
