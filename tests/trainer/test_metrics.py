"""The run store."""

import math
import sqlite3
import struct
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image
from run_reading import edit, read

from trainer.events import (
    Change,
    Changed,
    Ending,
    Evaluated,
    Finished,
    IterationDone,
    Paused,
    Saved,
    Skipped,
    Started,
    Unpaused,
)
from trainer.pictures.convert import to_pictures
from trainer.store.database import DATABASE, StoreError
from trainer.store.reader import Reader
from trainer.store.writer import open_store


def done(iteration: int, **metrics: float) -> IterationDone:
    """Two prompts, three candidates, of 32 x 16 pixels; candidate n is grey n / 10."""
    return IterationDone(
        iteration=iteration,
        metrics={"loss": 0.5, **metrics},
        prompts=["a cat", "<img src=x> \N{OWL} '; DROP TABLE scores"],
        seeds=[2**62 + 1, 7],
        scores={"clip": torch.arange(6.0).view(2, 3), "jpeg": torch.tensor([[1.0, math.nan, 3.0], [4.0, 5.0, 6.0]])},
        advantages=torch.tensor([[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
        anchors=torch.tensor([[True, False, False], [False, True, False]]),
        images=(torch.arange(6) / 10).view(6, 1, 1, 1).expand(6, 3, 16, 32),
    )


def rows(folder, query):
    with sqlite3.connect(folder / DATABASE) as database:
        return database.execute(query).fetchall()


def test_an_iteration_is_stored_whole(tmp_path):
    with open_store(tmp_path) as store:
        store(Started(0, 5))
        store(done(0, grad_norm=2.0))
        assert store.info("state") == "running"
        assert read(tmp_path, Reader.curve, "grad_norm") == [(0, 2.0)]
    assert rows(tmp_path, "SELECT prompt, seed FROM groups ORDER BY slot") == [
        ("a cat", 2**62 + 1),
        ("<img src=x> \N{OWL} '; DROP TABLE scores", 7),
    ]
    assert rows(tmp_path, "SELECT value FROM scores WHERE reward = 'clip' ORDER BY slot, candidate") == [
        (float(n),) for n in range(6)
    ]
    assert rows(tmp_path, "SELECT slot, candidate FROM candidates WHERE anchor") == [(0, 0), (1, 1)]
    assert rows(tmp_path, "SELECT advantage FROM candidates WHERE slot = 0") == [(-1.0,), (0.0,), (1.0,)]


def test_tiles_are_the_candidates_pictures(tmp_path):
    with open_store(tmp_path) as store:
        store(done(3))
    tiles = rows(tmp_path, "SELECT slot, candidate, tile FROM candidates")
    assert len(tiles) == 6
    for slot, candidate, tile in tiles:
        with Image.open(tmp_path / tile) as image:
            assert (image.format, image.size) == ("WEBP", (32, 16))
            grey = image.convert("RGB").getpixel((5, 5))
        expected = round((slot * 3 + candidate) / 10 * 255)
        assert all(abs(channel - expected) <= 3 for channel in grey)


def test_tiles_every_n_iterations_or_never(tmp_path):
    for every, expected in ((2, ["000000", "000002"]), (0, [])):
        folder = tmp_path / str(every)
        with open_store(folder, tiles_every=every) as store:
            for iteration in range(4):
                store(done(iteration))
        assert sorted(p.name for p in folder.glob("tiles/*")) == expected


def test_nan_is_stored_as_missing_and_shown_as_black(tmp_path):
    with open_store(tmp_path) as store:
        store(done(0, grad_norm=math.nan))
        assert read(tmp_path, Reader.curve, "grad_norm") == [(0, None)]
    assert rows(tmp_path, "SELECT value FROM scores WHERE reward = 'jpeg' AND slot = 0")[1] == (None,)
    picture = next(to_pictures(torch.full((1, 3, 2, 2), math.nan)))
    assert picture.getpixel((0, 0)) == (0, 0, 0)


def test_rewinding_forgets_later_iterations_only(tmp_path):
    with open_store(tmp_path) as store:
        for iteration in range(4):
            store(done(iteration))
            store(Skipped(iteration, "test"))
        store.rewind(2)
        store(done(2, loss=9.0))  # can be written again
        assert read(tmp_path, Reader.curve, "loss") == [(0, 0.5), (1, 0.5), (2, 9.0)]
    for table in ("groups", "candidates", "scores"):
        assert rows(tmp_path, f"SELECT max(iteration) FROM {table}") == [(2,)]
    assert rows(tmp_path, "SELECT max(iteration) FROM log") == [(1,)]


def test_an_iteration_that_fails_halfway_leaves_nothing(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        store(done(0))
        broken = done(1)
        broken.scores["jpeg"] = torch.zeros(1, 1)  # too few values
        with pytest.raises(IndexError):
            store(broken)
        assert read(tmp_path, Reader.curve, "loss") == [(0, 0.5)]
    assert rows(tmp_path, "SELECT max(iteration) FROM candidates") == [(0,)]


def test_a_reader_sees_the_run_while_it_is_written(tmp_path):
    with open_store(tmp_path) as store:
        store(done(0))
        assert rows(tmp_path, "SELECT count(*) FROM scores") == [(12,)]
        store(Saved(1, "run/lora.safetensors"))
        store(Finished(1, Ending("stopped")))
        assert (store.info("state"), store.info("saved"), store.info("lora")) == ("stopped", 1, "run/lora.safetensors")


def grey(*levels: float) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 16, 32)


def grey_of(path) -> float:
    with Image.open(path) as image:
        return image.convert("RGB").getpixel((5, 5))[0] / 255


def test_distances_are_stored_for_each_group_as_little_endian_float32(tmp_path):
    distances = torch.arange(18.0).view(2, 3, 3) / 7
    with open_store(tmp_path) as store:
        store(replace(done(0), distances=distances))
        store(done(1))
    stored = rows(tmp_path, "SELECT distances FROM groups ORDER BY iteration, slot")
    for slot in range(2):
        assert list(struct.unpack("<9f", stored[slot][0])) == distances[slot].flatten().tolist()
    assert stored[2:] == [(None,), (None,)]


def test_the_base_noises_own_pictures_lie_beside_the_candidates(tmp_path):
    with open_store(tmp_path, tiles_every=2) as store:
        for iteration in range(2):
            store(replace(done(iteration), base=grey(0.25, 0.75)))
        store(done(2))
    stored = [path for (path,) in rows(tmp_path, "SELECT base FROM groups ORDER BY iteration, slot")]
    assert [grey_of(tmp_path / path) for path in stored[:2]] == pytest.approx([0.25, 0.75], abs=0.02)
    assert stored[2:] == [None] * 4
    assert rows(tmp_path, "SELECT count(*) FROM candidates WHERE iteration = 0 AND tile IS NOT NULL") == [(6,)]


def evaluated(iteration: int, level: float = 0.5) -> Evaluated:
    scores = {"clip": torch.tensor([level, 2.0]), "jpeg": torch.tensor([math.nan, 3.0])}
    return Evaluated(iteration, ["a <b>cat</b>", "a dog"], [2**62 + 3, 4], scores, grey(level, 1 - level))


def test_an_evaluation_is_stored_with_its_pictures_and_scores(tmp_path):
    with open_store(tmp_path, tiles_every=0) as store:
        store(evaluated(0))
        store(evaluated(10, 0.25))
    stored = rows(tmp_path, "SELECT * FROM evaluations WHERE iteration = 10 ORDER BY number")
    assert [row[:4] for row in stored] == [(10, 0, "a <b>cat</b>", 2**62 + 3), (10, 1, "a dog", 4)]
    assert [grey_of(tmp_path / row[4]) for row in stored] == pytest.approx([0.25, 0.75], abs=0.02)
    query = "SELECT reward, number, value FROM evaluation_scores WHERE iteration = 10 ORDER BY reward, number"
    assert rows(tmp_path, query) == [("clip", 0, 0.25), ("clip", 1, 2.0), ("jpeg", 0, None), ("jpeg", 1, 3.0)]


def test_an_evaluation_belongs_to_what_came_before_it_and_can_be_made_again(tmp_path):
    with open_store(tmp_path) as store:
        for iteration in (0, 2, 4):
            store(evaluated(iteration))
        store.rewind(2)
        assert rows(tmp_path, "SELECT DISTINCT iteration FROM evaluations") == [(0,), (2,)]
        assert rows(tmp_path, "SELECT DISTINCT iteration FROM evaluation_scores") == [(0,), (2,)]
        store(evaluated(2, 0.125))
    assert rows(tmp_path, "SELECT value FROM evaluation_scores WHERE iteration = 2 AND number = 0")[0] == (0.125,)


def test_pauses_and_changes_are_told(tmp_path):
    with open_store(tmp_path) as store:
        store(Started(0, 9))
        store(Paused(2))
        assert store.info("state") == "paused"
        store(Unpaused(2, 61.0))
        assert store.info("state") == "running"
        first, second = Change(2, learning_rate=1e-5), Change(5, strength=0.25)
        store(Changed(first, (first,)))
        store(Changed(second, (first, second)))
        assert store.info("changes") == [{"iteration": 2, "learning_rate": 1e-5}, {"iteration": 5, "strength": 0.25}]
        store.rewind(3)
        assert store.changes() == [first, second]  # a resumed run makes them again
        store.set_info(title="my run")
        began = store.info("started")
        store(Started(3, 9))
        assert store.info("started") == began == pytest.approx(time.time(), abs=60)
        assert store.info("title") == "my run"
    assert [message for (message,) in rows(tmp_path, "SELECT message FROM log ORDER BY id")] == [
        "paused",
        "went on after a pause of 61 s",
        "changed: learning rate 1e-05",
    ]


def test_a_store_that_cannot_be_written_is_told_in_one_line(tmp_path):
    def lose_the_log(store):
        edit(tmp_path, "DROP TABLE log")
        store(Skipped(0, "test"))

    told = r"^the run's store .*run\.sqlite cannot be written \({}\)$"
    with pytest.raises(StoreError, match=told.format("no such table: log")), open_store(tmp_path) as store:
        lose_the_log(store)
    (tmp_path / DATABASE).write_bytes(b"no database, but of some length " * 100)
    with pytest.raises(StoreError, match=told.format("file is not a database")), open_store(tmp_path):
        pytest.fail("it was opened")


VERSION_1 = """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE metrics (name TEXT, iteration INTEGER, value REAL, PRIMARY KEY (name, iteration)) WITHOUT ROWID;
CREATE TABLE groups (
    iteration INTEGER, slot INTEGER, prompt TEXT, seed INTEGER, PRIMARY KEY (iteration, slot)) WITHOUT ROWID;
CREATE TABLE candidates (
    iteration INTEGER, slot INTEGER, candidate INTEGER, advantage REAL, anchor INTEGER, tile TEXT,
    PRIMARY KEY (iteration, slot, candidate)) WITHOUT ROWID;
CREATE TABLE scores (
    iteration INTEGER, slot INTEGER, candidate INTEGER, reward TEXT, value REAL,
    PRIMARY KEY (iteration, slot, candidate, reward)) WITHOUT ROWID;
CREATE TABLE log (id INTEGER PRIMARY KEY, iteration INTEGER, message TEXT NOT NULL);
INSERT INTO info VALUES ('version', '1'), ('state', '"stopped"'), ('iterations', '5');
INSERT INTO metrics VALUES ('loss', 0, 0.25), ('loss', 1, 0.75);
INSERT INTO groups VALUES (0, 0, 'a cat', 7), (1, 0, 'a dog', 8);
"""


# as earlier versions added the columns of version 2, in no certain order
ADDED = "ALTER TABLE groups ADD COLUMN distances BLOB; ALTER TABLE groups ADD COLUMN base TEXT;"


@pytest.mark.parametrize("added", ["", ADDED], ids=["version 1", "version 2"])
def test_an_older_store_is_read_and_written_on(tmp_path, added):
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.executescript(VERSION_1 + added)
    with open_store(tmp_path) as store:
        assert (store.info("version"), store.info("state"), store.changes()) == (2, "stopped", [])
        assert read(tmp_path, Reader.curve, "loss") == [(0, 0.25), (1, 0.75)]
        store.rewind(1)
        store(replace(done(1), distances=torch.zeros(2, 3, 3), base=grey(0.5, 0.5)))
        store(evaluated(2))
    with open_store(tmp_path) as store:  # and opened again
        assert read(tmp_path, Reader.curve, "loss") == [(0, 0.25), (1, 0.5)]
    old, new, _ = rows(tmp_path, "SELECT prompt, seed, base, distances FROM groups ORDER BY iteration, slot")
    assert old == ("a cat", 7, None, None)
    assert new == ("a cat", 2**62 + 1, "tiles/000001/0-base.webp", bytes(36))
