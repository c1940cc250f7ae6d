"""A reward that does not answer pauses a run: nothing is lost, nothing is scored twice, and the result is the same."""

import asyncio
import json
import sqlite3
import threading
import time
from dataclasses import replace

import pytest
import torch
from asked import Asked
from patience import GUARD
from served import servers

from trainer.engine.state import new_state
from trainer.errors import Stopped
from trainer.events import Ending, Finished, Resumed, Waiting
from trainer.rewards import RewardUnavailable, build
from trainer.rewards.transport import Server
from trainer.settings.config_file import load_config
from trainer.store.database import DATABASE
from trainer.training import waiting
from trainer.training.checkpoint import load as load_checkpoint
from trainer.training.loop import train
from trainer.training.prepare import prepare
from trainer.training.run import start_run
from trainer.training.run_folder import RunError

serve = pytest.fixture(servers)


class Shaky:
    """Colourfulness that is unavailable at some calls, and back after it was asked a few times."""

    def __init__(self, fails: set[int], back_after: int = 3):
        self.reward, self.fails, self.back_after = build("colourfulness", {}, "cpu"), fails, back_after
        self.calls, self.asked, self.seen = 0, 0, []

    def score(self, images, prompts):
        self.calls += 1
        self.seen.append(images)
        if self.calls in self.fails:
            self.asked = 0
            raise RewardUnavailable("the judge is asleep", self.is_back)
        return self.reward.score(images, prompts)

    def is_back(self) -> bool:
        self.asked += 1
        return self.asked >= self.back_after


class Counting:
    def __init__(self):
        self.reward, self.calls = build("jpeg-compressibility", {}, "cpu"), 0

    def score(self, images, prompts):
        self.calls += 1
        return self.reward.score(images, prompts)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    for name, seconds in (("FIRST_PAUSE", 0.02), ("LONGEST_PAUSE", 0.05), ("LOOK", 0.005)):
        monkeypatch.setattr(waiting, name, seconds)


@pytest.fixture
def make(config_file):
    """A setup of three iterations whose second reward may be unavailable."""

    def make(shaky=None):
        rewards = '[[rewards]]\nkind = "jpeg-compressibility"\n[[rewards]]\nkind = "colourfulness"'
        setup = prepare(load_config(config_file(rewards=rewards)))
        rewards = {"jpeg-compressibility": Counting(), "colourfulness": shaky or Shaky(set())}
        return replace(setup, rewards=rewards)

    return make


def run(setup, state=None, **options):
    events, state = [], state or new_state(setup)
    reason = str(
        train(setup, state, on_event=events.append, save=lambda s: events.append(("saved", s.iteration)), **options)
    )
    return reason, state, events


def same(a, b) -> bool:
    return all(torch.equal(a.lora[name], b.lora[name]) for name in a.lora)


def test_a_run_saves_says_so_and_goes_on_with_the_same_candidates(make):
    whole, setup = make(), make(Shaky({2, 4, 5}))
    run(whole)
    reason, state, events = run(setup)
    assert (reason, state.iteration) == ("complete", 3)
    assert same(setup, whole)
    pauses = [e for e in events if isinstance(e, Waiting | Resumed | tuple)]
    around = [("saved", 1), Waiting(1, "the judge is asleep"), Resumed]
    again = [("saved", 2), *[Waiting(2, "the judge is asleep"), Resumed] * 2, ("saved", 3)]  # once is enough
    assert [e if not isinstance(e, Resumed) else Resumed for e in pauses] == around + again
    assert [e.iteration for e in pauses if isinstance(e, Resumed)] == [1, 2, 2]
    shaky, other = setup.rewards["colourfulness"], setup.rewards["jpeg-compressibility"]
    assert shaky.seen[1] is shaky.seen[2]
    assert shaky.seen[3] is shaky.seen[4] is shaky.seen[5]
    assert (shaky.calls, other.calls) == (6, 3)  # what had been scored is not scored again


def test_the_questions_become_rarer(monkeypatch):
    now, asked = [0.0], []
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE", 30.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _: now.__setitem__(0, now[0] + 0.5))
    unavailable = RewardUnavailable("", lambda: asked.append(now[0]) or len(asked) == 8)
    assert waiting.wait_until_back(unavailable, lambda: None) == asked[-1]
    assert asked == [1, 3, 7, 15, 31, 61, 91, 121]


@pytest.mark.parametrize("how", ["control", "before_call"])
def test_a_stop_while_waiting_is_answered_and_loses_nothing(make, how):
    whole, shaky = make(), Shaky({2}, back_after=10**9)
    run(whole)
    setup = make(shaky)

    def stop() -> bool:
        return shaky.asked >= 2

    def cancel() -> None:
        if stop():
            raise Stopped

    if how == "before_call":
        setup.policy.before_call = cancel
    reason, state, events = run(setup, **({"control": Asked(stop)} if how == "control" else {}))
    assert (reason, state.iteration, state.updates) == ("stopped", 1, 1)
    assert events[-3:] == [("saved", 1), Waiting(1, "the judge is asleep"), Finished(1, Ending("stopped"))]
    setup.policy.before_call = lambda: None
    assert run(setup, state)[0] == "complete"
    assert same(setup, whole)


def test_the_run_store_says_that_it_waits(config_file, tmp_path):
    config, shaky, states = load_config(config_file()), Shaky({2}), []

    def look(event):
        if isinstance(event, Waiting | Resumed):
            with sqlite3.connect(tmp_path / "run" / DATABASE) as database:
                states.append(json.loads(database.execute("SELECT value FROM info WHERE key = 'state'").fetchone()[0]))
            assert load_checkpoint(tmp_path / "run" / "checkpoint").iteration == 1

    load = lambda config: replace(prepare(config), rewards={"colourfulness": shaky})  # noqa: E731
    assert start_run(config, listeners=[look], load=load)[0].kind == "complete"
    assert states == ["waiting: the judge is asleep", "running"]
    with sqlite3.connect(tmp_path / "run" / DATABASE) as database:
        log = database.execute("SELECT iteration, message FROM log ORDER BY id").fetchall()
    assert log == [(1, "waiting: the judge is asleep"), (1, "went on after 0 s")]


def test_a_run_goes_on_with_a_server_that_has_moved(config_file, tmp_path, serve):
    rewards = {"colourfulness": build("colourfulness", {}, "cpu")}

    def config(url, *overrides):
        remote = f'[[rewards]]\nkind = "remote"\noptions = {{ url = {url!r}, reward = "colourfulness" }}'
        return load_config(config_file(rewards=remote), overrides)

    start_run(config(serve(rewards).url, "run.iterations=1"))
    moved = serve(rewards).url
    with pytest.raises(RunError, match=r"rewards\.0\.options\.reward was 'colourfulness', is 'other'"):
        start_run(config(moved, "rewards.0.options.reward=other"), resume=True)
    assert start_run(config(moved, "rewards.0.options.timeout=500"), resume=True)[0].kind == "complete"


@pytest.mark.parametrize("how", ["control", "before_call"])
def test_a_stop_is_heard_while_an_answer_is_awaited(make, how):
    """Ctrl-C and the panel by the control, ComfyUI's Cancel by what every model call asks."""
    asked = threading.Event()

    class Silent:
        """A server's reward whose first answers come and whose later ones do not."""

        def __init__(self):
            self.server, self.calls = Server("http://127.0.0.1:9", timeout=GUARD, retries=0), 0

        def score(self, images, prompts):
            self.calls += 1
            if self.calls > 1:
                self.server.wait_for(self.never())
            return torch.zeros(len(images))

        async def never(self):
            asked.set()
            await asyncio.sleep(GUARD)

    def cancel() -> None:
        if asked.is_set():
            raise Stopped

    setup = make(Silent())
    if how == "before_call":
        setup.policy.before_call = cancel
    reason, state, events = run(setup, **({"control": Asked(asked.is_set)} if how == "control" else {}))
    assert (reason, state.iteration) == ("stopped", 1)
    assert events[-2:] == [("saved", 1), Finished(1, Ending("stopped"))]
    setup.rewards["colourfulness"].server.while_waiting()  # as before: it belongs to whoever asks next


def test_a_reward_that_is_back_and_fails_again_is_asked_more_rarely(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE", 30.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _: now.__setitem__(0, now[0] + 0.5))
    waits = []
    wait = lambda unavailable: waits.append(waiting.wait_until_back(unavailable, lambda: None))  # noqa: E731
    rewards = waiting.patient({"shaky": Shaky(set(range(1, 9)), back_after=1)}, wait, lambda: None)
    rewards["shaky"].score(torch.rand(1, 3, 16, 16), ["a"])
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
