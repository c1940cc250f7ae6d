"""The rows of an experiment: a CSV file to which finished runs are added, so that a second call goes on."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One test of a run; `trained` and `held_out` are rises over the base model, with the pictures' standard error."""

    task: str
    arm: str
    rate: float
    seed: int
    settings: str  # see `fingerprint`
    mark: int  # 1 .. marks
    iterations: int
    seconds: float
    trained: float
    trained_se: float
    held_out: float
    held_out_se: float
    before: float  # the trained reward of the base model
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def run(self) -> tuple[str, str, float, int]:
        return self.task, self.arm, self.rate, self.seed


COLUMNS = [f.name for f in fields(Row)]
NUMBERS = COLUMNS[COLUMNS.index("seconds") : COLUMNS.index("metrics")]


def read(path: Path) -> list[Row]:
    """The rows there are; none if it is another kind of table."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file)
        return [row_of(line) for line in lines] if lines.fieldnames == COLUMNS else []


def beside(path: Path) -> list[Row]:
    """The rows of all tables in a table's folder, its own first."""
    others = sorted(other for other in path.parent.glob("*.csv") if other != path)
    return [row for table in (path, *others) for row in read(table)]


def row_of(line: Mapping[str, str]) -> Row:
    metrics = dict(part.split("=") for part in line["metrics"].split(" ") if part)
    return Row(
        line["task"],
        line["arm"],
        float(line["rate"]),
        int(line["seed"]),
        line["settings"],
        int(line["mark"]),
        int(line["iterations"]),
        metrics={name: float(value) for name, value in metrics.items()},
        **{name: float(line[name]) for name in NUMBERS},
    )


def add(path: Path, rows: Iterable[Row]) -> None:
    """Append one run's rows by a single write: other processes may add theirs, and none is ever half there."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        writer.writerow(COLUMNS)
    for row in rows:
        metrics = " ".join(f"{name}={value:.6g}" for name, value in row.metrics.items())
        numbers = [f"{getattr(row, name):.6g}" for name in NUMBERS]
        writer.writerow(
            [row.task, row.arm, f"{row.rate:g}", row.seed, row.settings, row.mark, row.iterations, *numbers, metrics]
        )
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, text.getvalue().encode("utf-8"))
    finally:
        os.close(file)
