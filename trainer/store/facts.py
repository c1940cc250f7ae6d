"""Facts about a run (its settings, state, title, ...), each as JSON under its name. No torch in here."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from .database import changed
from .foreign import FACTS, VALUE, limit_values

MOST = 1000  # facts
PARTS = 500_000  # of one: a prompt is one, and each comma in it
DEPTH = 32  # of lists in lists
DIGITS = 20  # of a whole number: a seed has 64 bits
LARGEST = 1e100  # of a number, in size; a float32 ends at 3e38


def facts(database: sqlite3.Connection) -> dict[str, Any]:
    """All of them; what is no JSON is left out, as is what is nested or divided as no run's fact is.

    Raises:
        sqlite3.DatabaseError: they are too many.
    """
    limit_values(database, FACTS)
    found, left = {}, FACTS
    for n, (key, text) in enumerate(database.execute("SELECT key, value FROM info")):
        left -= sum(len(part) for part in (key, text) if isinstance(part, (str, bytes)))
        if n >= MOST or left < 0:
            raise sqlite3.DatabaseError(f"more than {MOST} facts, or {FACTS // 2**20} MB of them")
        try:
            found[key] = _parsed(text)
        except (ValueError, TypeError, RecursionError):
            continue
    limit_values(database, VALUE)
    return found


def _parsed(text: object) -> Any:
    """
    Raises:
        ValueError, TypeError, RecursionError: it is no JSON, or none of a fact.
    """
    if not isinstance(text, str) or sum(map(text.count, ",[{")) > PARTS:  # before they take a hundred bytes each
        raise ValueError
    value = json.loads(text, parse_float=lambda t: finite(float(t)), parse_int=_whole, parse_constant=lambda _: None)
    if not _is_flat(value, DEPTH):
        raise ValueError
    return value


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= DIGITS else None


def _is_flat(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return not isinstance(value, list) or (depth > 0 and all(_is_flat(part, depth - 1) for part in value))


def put(database: sqlite3.Connection, values: dict[str, Any]) -> None:
    """Facts in the place of what was known under their names."""
    rows = [(key, json.dumps(value)) for key, value in values.items()]
    database.executemany("INSERT OR REPLACE INTO info VALUES (?, ?)", rows)


def change_facts(folder: Path, **values: Any) -> None:
    """Change facts of a run that may be over.

    Raises:
        StoreError: there is no store in `folder`, or it is locked or broken.
    """
    with changed(folder) as database:
        put(database, values)


def finite(value: object) -> float | None:
    """A number for JSON, which has no NaN and no infinity; none of what a sum or a square would turn into one."""
    if not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        return None
    return 0.0 if 0 < abs(value) < 1 / LARGEST else value
