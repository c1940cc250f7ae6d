"""A whole run as CSV (its metrics) and as JSON (everything but pictures and distances), written piece by piece."""

import csv
import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import TextIO

from ..store.facts import finite
from ..store.reader import Reader
from .groups import evaluation, groups
from .runs import details, log


def write_csv(store: Reader, file: TextIO) -> None:
    """One row an iteration, one column a metric; an empty cell is a missing value."""
    names = store.names()
    columns = {name: n for n, name in enumerate(names)}
    writer = csv.writer(file)
    writer.writerow(["iteration", *names])
    for iteration, rows in by_iteration(store):
        cells: list[float | None] = [None] * len(names)
        for name, value in rows:
            cells[columns[name]] = finite(value)
        writer.writerow([iteration, *cells])


def write_json(store: Reader, file: TextIO) -> None:
    """`{"settings", "prompts", "changes", "log", "metrics": {name: [[iteration, value]]}, "groups", "evaluations"}`"""
    facts = details(store) | {"log": log(store)}
    names = facts.pop("metrics")
    file.write(json.dumps(facts)[:-1] + ', "metrics": {')
    for n, name in enumerate(names):
        curve = [[iteration, finite(value)] for iteration, value in store.curve(name)]
        file.write(f"{', ' if n else ''}{json.dumps(name)}: {json.dumps(curve)}")
    file.write('}, "groups": [')
    write_list(file, ({"iteration": i, "groups": groups(store, i, geometric=False)} for i in store.iterations()))
    file.write('], "evaluations": [')
    write_list(file, ({"iteration": i, "pictures": evaluation(store, i)} for i in store.evaluations()))
    file.write("]}\n")


def write_list(file: TextIO, values: Iterator[object]) -> None:
    for n, value in enumerate(values):
        file.write((",\n" if n else "\n") + json.dumps(value))


def by_iteration(store: Reader) -> Iterator[tuple[int, list[tuple[str, float | None]]]]:
    """(iteration, (name, value) of each metric), in order."""
    for iteration, rows in groupby(store.metrics(), itemgetter(0)):
        yield iteration, [(name, value) for _, name, value in rows]
