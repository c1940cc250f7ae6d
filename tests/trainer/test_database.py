"""The run's database where drives lack something, and where it is damaged or of another version."""

import sqlite3
from contextlib import closing

import pytest

from trainer.store import database
from trainer.store.database import DATABASE, StoreError, created, damage, set_aside
from trainer.store.reader import reading
from trainer.store.writer import open_store


def journal(folder):
    with closing(sqlite3.connect(folder / DATABASE)) as found:
        return found.execute("PRAGMA journal_mode").fetchone()[0]


def test_readers_never_wait_for_the_writer_where_the_drive_can(tmp_path):
    with open_store(tmp_path) as store:
        store.database.execute("BEGIN IMMEDIATE")
        with reading(tmp_path) as seen:
            assert seen.info()["version"] == 2
        store.database.rollback()
    assert journal(tmp_path) == "wal"


@pytest.fixture
def plain_drive(monkeypatch):
    """SQLite's own layer for drives without shared memory and without locks but for files in their place."""
    connect = sqlite3.connect

    def plain(address, **options):
        mark = "&" if "?" in address else "?"
        return connect(f"{address}{mark}vfs=unix-dotfile", **options)

    monkeypatch.setattr(database.sqlite3, "connect", plain)


@pytest.mark.usefixtures("plain_drive")
def test_without_shared_memory_there_is_a_rollback_journal(tmp_path):
    with open_store(tmp_path) as store:
        store.set_info(title="on a drive")
        assert store.database.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    with reading(tmp_path) as seen:
        assert seen.info()["title"] == "on a drive"


def test_a_store_that_was_begun_elsewhere_goes_on_without_shared_memory(tmp_path, request):
    with open_store(tmp_path) as store:
        store.set_info(title="on a disk")
    assert journal(tmp_path) == "wal"
    request.getfixturevalue("plain_drive")
    with open_store(tmp_path) as store:
        assert store.info("title") == "on a disk"
        store.set_info(title="on a drive")
    with reading(tmp_path) as seen:
        assert seen.info()["title"] == "on a drive"


class Refusing(sqlite3.Connection):
    """Of a drive that knows no locks: only who does without them may do anything."""

    def execute(self, statement, *values):
        if "nolock" not in self.address and not statement.startswith(("PRAGMA trusted", "PRAGMA locking")):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(statement, *values)


def test_without_locks_it_is_written_without_them(tmp_path, monkeypatch):
    connect = sqlite3.connect

    def refusing(address, **options):
        made = connect(address, factory=Refusing, **options)
        made.address = address
        return made

    monkeypatch.setattr(database.sqlite3, "connect", refusing)
    with open_store(tmp_path) as store:
        store.set_info(title="without locks")
    monkeypatch.undo()
    with reading(tmp_path) as seen:
        assert seen.info()["title"] == "without locks"


def test_a_store_of_a_newer_version_is_refused_and_not_rewritten(tmp_path):
    with open_store(tmp_path) as store:
        store.set_info(version=9)
    before = (tmp_path / DATABASE).read_bytes()
    newer = r"run\.sqlite was written by a newer version \(its format is 9, this one knows up to 2\): update this"
    with pytest.raises(StoreError, match=newer), open_store(tmp_path):
        pass
    assert (tmp_path / DATABASE).read_bytes() == before


def test_damage_is_found_and_what_is_whole_or_missing_has_none(tmp_path):
    assert damage(tmp_path) == ""
    with open_store(tmp_path) as store:
        store.set_info(title="x" * 10_000)
    assert damage(tmp_path) == ""
    raw = bytearray((tmp_path / DATABASE).read_bytes())
    raw[4096:8192] = bytes(4096)
    (tmp_path / DATABASE).write_bytes(raw)
    assert damage(tmp_path)
    (tmp_path / DATABASE).write_text("no database at all, and longer than the header of one is" * 10)
    assert damage(tmp_path) == "file is not a database"


def test_what_is_set_aside_overwrites_nothing(tmp_path):
    for n in range(3):
        (tmp_path / DATABASE).write_text(f"{n}")
        (tmp_path / f"{DATABASE}-wal").write_text(f"log {n}")
        set_aside(tmp_path)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {
        "run.sqlite.damaged": "0", "run.sqlite.damaged-wal": "log 0",
        "run.sqlite.damaged-2": "1", "run.sqlite.damaged-2-wal": "log 1",
        "run.sqlite.damaged-3": "2", "run.sqlite.damaged-3-wal": "log 2",
    }  # fmt: skip


def test_a_broken_change_in_the_store_is_no_change(tmp_path):
    with open_store(tmp_path) as store:
        store.set_info(changes=[{"iteration": 3, "strength": 0.2}])
        assert [change.strength for change in store.changes()] == [0.2]
        for broken in ([{"nonsense": 1}], [3], {"iteration": 3}, "text", [{"iteration": "x"}]):
            store.set_info(changes=broken)
            assert store.changes() == []


def test_a_folder_that_cannot_be_written_to_is_told_with_the_remedy(tmp_path):
    (tmp_path / DATABASE).mkdir()
    with pytest.raises(StoreError, match="unable to open database file"), created(tmp_path):
        pass
