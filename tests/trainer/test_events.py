"""What events say of themselves, and who repeats it."""

import pytest
import torch

from trainer.events import (
    Change,
    Changed,
    Drawn,
    Ending,
    Evaluated,
    Finished,
    Halved,
    IterationDone,
    LetGo,
    Paused,
    Probed,
    Resumed,
    Saved,
    SelfTested,
    Skipped,
    Started,
    Unpaused,
    Waiting,
    kind_of,
)
from trainer.history import details
from trainer.store.reader import reading
from trainer.store.writer import open_store

CHANGE = Change(3, learning_rate=1e-4, strength=0.2)
PICTURES = torch.zeros(2, 3, 8, 8)
MEANS = {"clip": torch.tensor([0.25, 0.5]), "ocr": torch.ones(2)}
TESTED = (
    "before the first update |rho - 1| is 0.5, and velocities differ by 0.25 of their size; "
    "the gradient misses its promise by 0.75"
)
PROBED = "strength 0.1, where neighborhoods agree most on what to change (0.1: 0.250, 1: 0.000)"
HALVED, CHANGED = "out of memory in update: 2 at once from here on", "changed: learning rate 0.0001, strength 0.2"
LET_GO = "out of memory in reward: the rollout keeps no block inputs from here on"
# event, its sentence, the state it brings, its line in the run's log
EVENTS = [
    (Started(3, 9), "", "running", ""),
    (SelfTested(3, 0.5, 0.25, 0.75, ""), TESTED, None, ""),
    (SelfTested(3, 0.5, 0.25, 0.75, "a cause"), f"{TESTED}: a cause", None, f"{TESTED}: a cause"),
    (Probed(3, {0.1: 0.25, 1.0: 0.0}, 0.1), PROBED, None, PROBED),
    (Skipped(3, "why"), "update skipped: why", None, "update skipped: why"),
    (Halved(3, "update", 2), HALVED, None, HALVED),
    (LetGo(3, "reward"), LET_GO, None, LET_GO),
    (Waiting(3, "it sleeps"), "saved, and waiting: it sleeps", "waiting: it sleeps", "waiting: it sleeps"),
    (Resumed(3, 59.6), "went on after 60 s", "running", "went on after 60 s"),
    (Paused(3), "saved, and paused", "paused", "paused"),
    (Unpaused(3, 59.6), "went on after a pause of 60 s", "running", "went on after a pause of 60 s"),
    (Changed(CHANGE, (CHANGE,)), CHANGED, None, CHANGED),
    (
        Evaluated(3, ["a", "b"], [1, 2], MEANS, PICTURES),
        "2 pictures of the evaluation prompts: clip 0.3750, ocr 1.0000",
        None,
        "",
    ),
    (Saved(3, "a file"), "", None, ""),
    (Finished(3, Ending("failed", "why")), "", "failed: why", ""),
]
each_event = pytest.mark.parametrize(
    ("event", "sentence", "state", "line"), EVENTS, ids=[type(event).__name__ for event, *_ in EVENTS]
)


@each_event
def test_an_event_says_its_sentence_and_its_state(event, sentence, state, line):
    assert (str(event), event.state) == (sentence, state)


@each_event
def test_the_store_keeps_the_state_and_one_line(event, sentence, state, line, tmp_path):
    with open_store(tmp_path) as store:
        store.set_info(state="as it was")
        store(event)
    with reading(tmp_path) as found:
        assert found.info()["state"] == (state or "as it was")
        assert details(found)["log"] == ([{"iteration": 3, "message": line}] if line else [])


def test_pictures_and_measures_are_shown_and_need_no_sentence():
    drawn = Drawn(0, ["a"], [1], PICTURES, group_size=2)
    done = IterationDone(0, {}, ["a"], [1], {}, torch.zeros(1, 2), torch.zeros(1, 2), PICTURES)
    assert [(str(event), event.state) for event in (drawn, done)] == [("", None)] * 2


def test_the_kind_of_a_state_is_what_stands_before_its_explanation():
    states = ("", "running", "waiting: it sleeps: still", "stopped by trust-region: 80%", "failed: OSError: full")
    assert [kind_of(state) for state in states] == ["", "running", "waiting", "stopped by trust-region", "failed"]
