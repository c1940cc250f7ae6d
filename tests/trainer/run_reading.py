"""What the tests of the history do with a run's store: ask it, and spoil it."""

import sqlite3
from pathlib import Path

from trainer.history import reading
from trainer.store.database import DATABASE


def read(folder, function, *arguments, **options):
    with reading(folder) as store:
        return function(store, *arguments, **options)


def edit(folder: Path, *statements: str) -> None:
    database = sqlite3.connect(folder / DATABASE)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()
