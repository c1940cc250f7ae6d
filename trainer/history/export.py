"""A whole run as CSV (its metrics) and as JSON (everything but pictures and distances), written piece by piece."""

import csv
import json
from collections.abc import Iterator
from typing import Protocol, TextIO

from ..store.database import StoreError
from ..store.facts import finite
from ..store.reader import Reader
from .groups import evaluation, groups
from .runs import details, log

LARGEST = 2 * 2**30  # characters of an export; 100,000 iterations of 24 candidates have 300 MB


class Writable(Protocol):
    def write(self, text: str, /) -> object: ...


class Bounded:
    """A text file that takes LARGEST characters: a small file of a stranger can be told to be endless.

    Raises:
        StoreError: there are more.
    """

    def __init__(self, file: TextIO):
        self.file, self.left = file, LARGEST

    def write(self, text: str) -> int:
        self.left -= len(text)
        if self.left < 0:
            raise StoreError(f"the run has more than {LARGEST // 2**30} GB to export")
        return self.file.write(text)


def write_csv(store: Reader, to: TextIO) -> None:
    """One row an iteration, one column a metric; an empty cell is a missing value."""
    file, names = Bounded(to), store.names()
    writer = csv.writer(file)
    writer.writerow(["iteration", *names])
    for iteration, values in store.metrics():
        writer.writerow([iteration, *(finite(values.get(name)) for name in names)])


def write_json(store: Reader, to: TextIO) -> None:
    """`{"settings", "prompts", "changes", "log", "metrics": {name: [[iteration, value]]}, "groups", "evaluations"}`"""
    file = Bounded(to)
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


def write_list(file: Writable, values: Iterator[object]) -> None:
    for n, value in enumerate(values):
        file.write((",\n" if n else "\n") + json.dumps(value))
