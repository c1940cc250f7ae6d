"""The run store."""

import math
import sqlite3

import pytest
import torch
from PIL import Image

from trainer.events import Finished, IterationDone, Saved, Skipped, Started
from trainer.metrics import DATABASE, RunStore, open_store, to_pictures


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
        assert store.curve("grad_norm") == [(0, 2.0)]
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
        assert store.curve("grad_norm") == [(0, None)]
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
        assert store.curve("loss") == [(0, 0.5), (1, 0.5), (2, 9.0)]
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
        assert store.curve("loss") == [(0, 0.5)]
    assert rows(tmp_path, "SELECT max(iteration) FROM candidates") == [(0,)]


def test_a_reader_sees_the_run_while_it_is_written(tmp_path):
    store = RunStore(tmp_path)
    store(done(0))
    assert rows(tmp_path, "SELECT count(*) FROM scores") == [(12,)]
    store(Saved(1, "run/lora.safetensors"))
    store(Finished(1, "stopped"))
    assert (store.info("state"), store.info("saved"), store.info("lora")) == ("stopped", 1, "run/lora.safetensors")
    store.close()
