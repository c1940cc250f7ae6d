"""A table of numbers that were measured, with the paragraph that reads them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    text: str

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([plain(value) for value in row] for row in self.rows)

    def markdown(self) -> str:
        lines = [f"| {' | '.join(self.columns)} |", "|" + "---|" * len(self.columns)]
        lines += [f"| {' | '.join(str(plain(value)) for value in row)} |" for row in self.rows]
        return "\n".join(lines)


def joined(tables: Mapping[str, Table]) -> Table:
    """The tables of several tasks as one, the task before each row."""
    rows = [(task, *row) for task, table in tables.items() for row in table.rows]
    text = " ".join(f"On {task}: {table.text}" for task, table in tables.items())
    return Table(("task", *next(iter(tables.values())).columns), rows, text)


def plain(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
