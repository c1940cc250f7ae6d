"""Runs on disk that a person steered, or that failed: what is kept of it, and going on with them."""

import json
import shutil
import sqlite3

import pytest
import torch
from exported import read_lora
from safetensors.torch import load_file

from trainer.errors import UserError
from trainer.events import Changed, Finished, IterationDone
from trainer.settings.config_file import load_config
from trainer.store.database import DATABASE
from trainer.store.reader import reading
from trainer.training.checkpoint import load as load_checkpoint
from trainer.training.control import Control
from trainer.training.run import start_run
from trainer.training.run_folder import LORA

SETTINGS = ["run.iterations=8", "run.save_every=4", "optimizer.warmup=0"]
CHANGES = [{"iteration": 2, "learning_rate": 5e-4, "strength": 0.5}, {"iteration": 5, "learning_rate": 2e-3}]


class Killed(BaseException):
    """Ends a run as it stands."""


class Person:
    """A listener that wishes for CHANGES at their iterations, and may kill the run after one."""

    def __init__(self, die_after: int = -1):
        self.control, self.die_after, self.seen = Control(), die_after, []

    def __call__(self, event):
        self.seen.append(event)
        if isinstance(event, IterationDone):
            for change in CHANGES:
                if change["iteration"] == event.iteration + 1:
                    self.control.change(change.get("learning_rate"), change.get("strength"))
            if event.iteration == self.die_after:
                raise Killed


@pytest.fixture
def config(config_file, tmp_path):
    def config(folder: str = "run", *overrides: str):
        return load_config(config_file(), [f"run.folder={str(tmp_path / folder)!r}", *SETTINGS, *overrides])

    return config


def outcome(folder) -> tuple[dict, list]:
    checkpoint = load_checkpoint(folder / "checkpoint")
    with sqlite3.connect(folder / DATABASE) as database:
        query = "SELECT * FROM metrics WHERE name NOT LIKE 'seconds%' ORDER BY 1, 2"
        metrics = database.execute(query).fetchall()
    return {**checkpoint.lora, **checkpoint.optimizer, **load_file(folder / LORA)}, metrics


def assert_equal(folder, expected):
    (tensors, metrics), (expected_tensors, expected_metrics) = outcome(folder), outcome(expected)
    assert metrics == expected_metrics
    assert all(torch.equal(tensors[name], value) for name, value in expected_tensors.items())


def steered(config, person, **options):
    return start_run(config, listeners=[person], control=person.control, **options)


# before the first checkpoint; when only the store knows of the last change; when a checkpoint holds the first one
@pytest.mark.parametrize("die_after", [2, 5, 6])
def test_a_killed_run_with_changes_goes_on_to_the_bits_of_the_uninterrupted_one(config, tmp_path, die_after):
    steered(config("whole"), Person())
    killed = Person(die_after)
    with pytest.raises(Killed):
        steered(config(), killed)
    later = [c for c in CHANGES if c["iteration"] > die_after]
    resumed = Person()
    # what was changed before the kill is made again by the run, what came after it by the person
    resumed.control.change = lambda *values, wish=resumed.control.change: later and wish(*values)
    assert steered(config(), resumed, resume=True)[0].kind == "complete"
    assert_equal(tmp_path / "run", tmp_path / "whole")
    with reading(tmp_path / "run") as store:
        assert store.info()["changes"] == CHANGES
        assert [v for _, v in store.curve("strength")] == [0.3] * 2 + [0.5] * 6
        assert [v for _, v in store.curve("learning_rate")] == [1e-3] * 2 + [5e-4] * 3 + [2e-3] * 3


def test_a_checkpoint_alone_knows_the_changes_before_it(config, tmp_path):
    steered(config("whole"), Person())
    with pytest.raises(Killed):
        steered(config("run", "run.save_every=6"), Person(6))
    for path in (tmp_path / "run").glob(DATABASE + "*"):
        path.unlink()
    seen = []
    start_run(config("run"), resume=True, listeners=[seen.append])
    assert not [e for e in seen if isinstance(e, Changed)]  # both lie before the checkpoint
    expected = outcome(tmp_path / "whole")[0]
    assert all(torch.equal(outcome(tmp_path / "run")[0][name], value) for name, value in expected.items())


def test_the_lora_says_what_was_changed(config, tmp_path):
    steered(config(), Person())
    assert json.loads(read_lora(tmp_path / "run" / LORA)[2]["changes"]) == CHANGES
    start_run(config("other", "run.iterations=1"))
    assert "changes" not in read_lora(tmp_path / "other" / LORA)[2]


def test_a_run_that_begins_anew_forgets_the_first_try(config, tmp_path):
    with pytest.raises(Killed):
        steered(config(), Person(2))
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    start_run(config("run", "run.iterations=3"))
    with reading(tmp_path / "run") as store:
        assert store.info()["changes"] == []
        assert [v for _, v in store.curve("strength")] == [0.3] * 3


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (
            OSError(28, "No space left on device"),
            "failed: the disk is full, or has no room for another file: free some space",
        ),
        (UserError("the reward is gone\nand more"), "failed: the reward is gone and more"),
        (KeyboardInterrupt(), "failed: KeyboardInterrupt"),
    ],
)
def test_a_run_that_fails_says_why_and_still_raises(config, tmp_path, error, state):
    seen = []

    def fail(event):
        seen.append(event)
        if isinstance(event, IterationDone) and event.iteration == 1:
            raise error

    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        start_run(config(), listeners=[fail])
    with reading(tmp_path / "run") as store:
        assert store.info()["state"] == state
    assert (type(seen[-1]), seen[-1].iteration, seen[-1].state) == (Finished, 2, state)


def test_what_a_listener_makes_of_the_failure_does_not_hide_it(config):
    def fail(event):
        raise ZeroDivisionError if isinstance(event, Finished) else OSError("first")

    with pytest.raises(UserError, match="first"):
        start_run(config(), listeners=[fail])


def test_a_run_of_before_these_settings_goes_on(config, tmp_path):
    """Its checkpoint knows neither changes nor evaluations, its store is of version 1."""
    start_run(config("whole"))
    start_run(config("run", "run.iterations=4"))
    state = tmp_path / "run" / "checkpoint" / "000004" / "state.json"
    old = json.loads(state.read_text())
    del old["changes"], old["settings"]["evaluation"], old["settings"]["run"]["base_every"]
    del old["settings"]["run"]["stop_on"], old["format"], old["digest"], old["sha256"]
    state.write_text(json.dumps(old))
    with sqlite3.connect(tmp_path / "run" / DATABASE) as database:
        for statement in (
            "ALTER TABLE groups DROP COLUMN base",
            "ALTER TABLE groups DROP COLUMN distances",
            "DROP TABLE evaluations",
            "DROP TABLE evaluation_scores",
            "DELETE FROM info WHERE key IN ('changes', 'started')",
            "UPDATE info SET value = '1' WHERE key = 'version'",
        ):
            database.execute(statement)
    assert start_run(config(), resume=True)[0].kind == "complete"
    assert_equal(tmp_path / "run", tmp_path / "whole")
