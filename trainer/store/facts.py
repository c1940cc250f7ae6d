"""Facts about a run (its settings, state, title, ...), each as JSON under its name. No torch in here."""

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

from .database import changed


def facts(database: sqlite3.Connection) -> dict[str, Any]:
    """All of them; what is no JSON is left out."""
    found = {}
    for key, text in database.execute("SELECT key, value FROM info"):
        try:
            found[key] = json.loads(text, parse_float=lambda t: finite(float(t)), parse_constant=lambda _: None)
        except (ValueError, TypeError, RecursionError):
            continue
    return found


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
    """A number for JSON, which has no NaN and no infinity."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
