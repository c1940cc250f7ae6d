"""What leaves a run folder and what a person does to it: exports, a title, the trash."""

import io
import json
import sqlite3
import threading
from pathlib import Path

import pytest
import run_folders
from run_folders import HELD_OUT, TRAINED, Run, write
from run_reading import edit, read

from trainer.history import StoreError, summaries, summary
from trainer.history.export import write_csv, write_json
from trainer.history.housekeeping import NotMoved, move_to_trash, set_title
from trainer.lock import Busy, exclusive
from trainer.store.database import DATABASE


def test_the_csv_holds_every_value_and_gaps_are_empty(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=9, missing=range(3, 5)))
    edit(folder, "DELETE FROM metrics WHERE name = 'loss' AND iteration = 7")
    file = io.StringIO(newline="")
    read(folder, write_csv, file)
    head, *rows = [line.split(",") for line in file.getvalue().splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "2", "5", "6", "7", "8"]
    database = sqlite3.connect(folder / DATABASE)
    for n, name in enumerate(head[1:], 1):
        stored = dict(database.execute("SELECT iteration, value FROM metrics WHERE name = ?", (name,)))
        expected = ["" if stored.get(int(row[0])) is None else repr(stored[int(row[0])]) for row in rows]
        assert [row[n] for row in rows] == expected
    database.close()
    assert [row[head.index("loss")] for row in rows][5] == ""


def test_the_json_holds_everything_but_pictures(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=4, evaluations=(0, 4), prompts=(run_folders.MARKUP,)))
    edit(folder, "INSERT INTO metrics VALUES ('spike', 1, 9e999)")
    file = io.StringIO()
    read(folder, write_json, file)
    found = json.loads(file.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["metrics"]["spike"] == [[1, None]]
    assert [len(curve) for name, curve in found["metrics"].items() if name != "spike"] == [4] * 20
    assert [g["iteration"] for g in found["groups"]] == [0, 1, 2, 3]
    assert found["groups"][2]["groups"][0]["prompt"] == run_folders.MARKUP
    assert [e["iteration"] for e in found["evaluations"]] == [0, 4]
    assert set(found["evaluations"][0]["pictures"][0]["scores"]) == {TRAINED, HELD_OUT}


def test_a_title_is_kept_and_an_empty_one_is_the_folders_name(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=1, version=1))
    set_title(folder, run_folders.MARKUP)
    assert summary(folder).title == run_folders.MARKUP
    set_title(folder, "")
    assert summary(folder).title == "run"


def test_a_title_makes_no_store_where_none_is(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(StoreError):
        set_title(tmp_path / "run", "a name")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_moves_to_the_trash_and_never_over_another(tmp_path):
    places = []
    for n in range(3):
        folder = write(tmp_path / "run", Run(iterations=n + 1))
        places.append(move_to_trash(tmp_path, folder))
        assert not folder.exists()
        if n == 0:  # whatever lies there stays: a file, a link to nowhere, a folder with nothing in it
            (tmp_path / ".trash" / "run-4").mkdir()
            (tmp_path / ".trash" / "run-2").write_text("mine")
            (tmp_path / ".trash" / "run-3").symlink_to(tmp_path / "nowhere")
    assert [p.name for p in places] == ["run", "run-5", "run-6"]
    assert [summary(p).iteration for p in places] == [1, 2, 3]
    assert (tmp_path / ".trash" / "run-2").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / ".trash" / "run-4").iterdir()) == []
    assert summaries(tmp_path) == []


def test_a_run_at_work_is_not_moved_nor_one_into_a_linked_trash(tmp_path):
    folder, elsewhere = write(tmp_path / "runs" / "run", Run(iterations=1)), tmp_path / "elsewhere"
    with exclusive(str(folder.absolute()), "busy"), pytest.raises(Busy, match="stop it before"):
        move_to_trash(tmp_path / "runs", folder)
    elsewhere.mkdir()
    (tmp_path / "runs" / ".trash").symlink_to(elsewhere)
    with pytest.raises(NotMoved, match="is a link"):
        move_to_trash(tmp_path / "runs", folder)
    assert folder.is_dir()
    assert not list(elsewhere.iterdir())


def test_two_who_move_the_same_run_move_it_once(tmp_path):
    folder, results = write(tmp_path / "run", Run(iterations=1)), []

    def move():
        try:
            results.append(move_to_trash(tmp_path, folder))
        except (Busy, NotMoved) as error:
            results.append(type(error))

    threads = [threading.Thread(target=move) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(r, Path) for r in results) == 1
    assert [p.name for p in (tmp_path / ".trash").iterdir()] == ["run"]
