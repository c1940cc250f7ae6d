"""Wishes of a person during a run: they are obeyed between iterations, and cost nothing where there are none."""

import math
import threading
import time
from dataclasses import replace

import pytest
import torch
from patience import GUARD

from trainer.engine.state import new_state
from trainer.errors import ConfigError, Stopped
from trainer.events import Change, Changed, Ending, Finished, IterationDone, Paused, Unpaused
from trainer.settings.config_file import load_config
from trainer.training.control import Control, change_at, in_force, with_change
from trainer.training.loop import train
from trainer.training.prepare import prepare
from trainer.training.waiting import LOOK

SHORT = ["run.save_every=100", "run.iterations=6", "sampling.steps=2", "grpo.prompts_per_iteration=1"]


class Recorder(list):
    """Events, and ("saved", iteration) for each save; `react` may make wishes of them."""

    def __init__(self, react=lambda event: None):
        super().__init__()
        self.react = react

    def __call__(self, event):
        self.append(event)
        self.react(event)

    def of(self, kind):
        return [e for e in self if isinstance(e, kind)]


@pytest.fixture
def make(config_file):
    def make(*overrides):
        return prepare(load_config(config_file(), [*SHORT, *overrides]))

    return make


def run(setup, control=None, react=lambda event: None, **options):
    events, state = Recorder(react), new_state(setup)
    save = lambda s: events(("saved", s.iteration))  # noqa: E731
    reason = str(train(setup, state, on_event=events, save=save, control=control, **options))
    return reason, state, events


def weights(setup):
    return {name: p.detach().clone() for name, p in setup.lora.items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def after(iteration, wish):
    """Makes a wish when an iteration is done."""

    def react(event):
        if isinstance(event, IterationDone) and event.iteration == iteration:
            wish()

    return react


def test_a_control_without_wishes_changes_nothing(make):
    alone, watched = make(), make()
    _, _, expected = run(alone)
    _, _, events = run(watched, Control())
    assert same(weights(alone), weights(watched))
    assert [type(e) for e in events] == [type(e) for e in expected]
    for a, b in zip(events.of(IterationDone), expected.of(IterationDone), strict=True):
        values = [{k: v for k, v in e.metrics.items() if "seconds" not in k} for e in (a, b)]
        assert values[0] == values[1]


def test_a_pause_saves_and_waits_and_a_resumed_run_ends_as_if_there_had_been_none(make):
    whole, paused, control = make(), make(), Control()
    run(whole)

    def react(event):
        after(1, control.pause)(event)
        if isinstance(event, Paused):
            threading.Timer(0.3, control.resume).start()

    reason, state, events = run(paused, control, react)
    assert (reason, state.iteration) == ("complete", 6)
    place = events.index(Paused(2))
    assert events[place - 1] == ("saved", 2)
    unpaused = events[place + 1]
    assert isinstance(unpaused, Unpaused)
    assert unpaused.seconds > 0.25
    assert [e.iteration for e in events.of(IterationDone)] == list(range(6))
    assert same(weights(paused), weights(whole))


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_stop_ends_a_pause_and_the_run(make, how):
    setup, control, asked = make(), Control(), []
    rescue = threading.Timer(GUARD, control.resume)  # a stop that is not heard is a failure, not a test without an end
    rescue.daemon = True

    def look():
        if how == "cancel" and asked:
            raise Stopped

    def react(event):
        after(1, control.pause)(event)
        if isinstance(event, Paused):
            rescue.start()
            asked.append(True)
            if how == "stop":
                control.stop()

    setup.policy.before_call = look
    reason, state, events = run(setup, control, react)
    assert (reason, state.iteration) == ("stopped", 2)
    assert not events.of(Unpaused)
    assert [e for e in events if isinstance(e, tuple)] == [("saved", 2)]  # once
    assert events[-1] == Finished(2, Ending("stopped"))


def test_stop_finishes_the_iteration_saves_and_ends(make):
    control = Control()
    reason, state, events = run(make(), control, after(2, control.stop))
    assert (reason, state.iteration) == ("stopped", 3)
    assert events[-2:] == [("saved", 3), Finished(3, Ending("stopped"))]


def test_the_first_wish_to_stop_counts(make):
    control = Control()
    control.stop()
    control.stop("it was enough")
    reason, state, _ = run(make(), control)
    assert (reason, state.iteration) == ("stopped", 0)


def test_a_reason_to_stop_is_the_reason_that_is_told(make):
    control = Control()
    control.stop("stopped by something: it was so")
    reason, _, events = run(make(), control)
    assert reason == events[-1].state == "stopped by something: it was so"


def test_save_now_saves_once_after_the_iteration_and_during_a_pause(make):
    control = Control()

    def react(event):
        after(0, control.save)(event)
        after(3, control.pause)(event)
        if isinstance(event, Paused):
            control.save()
            threading.Timer(0.3, control.resume).start()

    _, _, events = run(make(), control, react)
    assert [e[1] for e in events if isinstance(e, tuple)] == [1, 4, 4, 6]


@pytest.mark.also_on_card
def test_a_change_holds_from_the_next_iteration_and_is_told(make):
    control = Control()
    setup = make("optimizer.warmup=0", "run.iterations=5")
    _, state, events = run(
        setup,
        control,
        lambda event: (
            after(0, lambda: control.change(learning_rate=1e-5))(event),
            after(2, lambda: control.change(strength=0.7))(event),
        ),
    )
    done = events.of(IterationDone)
    assert [e.metrics["learning_rate"] for e in done] == [1e-3, *[1e-5] * 4]
    assert [e.metrics["strength"] for e in done] == [0.3] * 3 + [0.7] * 2
    # neighbours at strength s differ by a variance of 2 s^2, of which a random model keeps some share
    diversity = [e.metrics["diversity"] for e in done]
    assert min(diversity[3:]) > 2 * max(diversity[:3])
    first, second = Change(1, learning_rate=1e-5), Change(3, strength=0.7)
    assert events.of(Changed) == [Changed(first, (first,)), Changed(second, (first, second))]
    assert state.changes == [first, second]


def test_a_run_with_recorded_changes_makes_them_again_and_ends_bit_equal(make):
    settings = ("optimizer.warmup=0", "optimizer.learning_rate=1e-2")
    changed, repeated, never = make(*settings), make(*settings), make(*settings)
    control = Control()
    wish = lambda: control.change(1e-3, 0.5)  # noqa: E731
    _, state, _ = run(changed, control, after(2, wish))
    run(never)
    events, again = Recorder(), new_state(repeated)
    again.changes = list(state.changes)
    train(repeated, again, on_event=events, save=lambda s: None)
    assert events.of(Changed) == [Changed(Change(3, 1e-3, 0.5), (Change(3, 1e-3, 0.5),))]
    assert same(weights(repeated), weights(changed))
    assert not same(weights(never), weights(changed))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "needs a learning rate or a strength"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate = 0.0: must be above 0"),
        ({"learning_rate": math.inf}, "learning_rate = inf: must be a finite number"),
        ({"learning_rate": math.nan, "strength": 0.5}, "learning_rate = nan"),
        ({"strength": 1.5}, "grpo.strength = 1.5: must be above 0 and at most 1"),
        ({"learning_rate": 1e-4, "strength": 0.0}, "grpo.strength = 0.0"),
    ],
)
def test_a_wish_that_no_setting_could_be_is_refused_whole(wish, message):
    control = Control()
    with pytest.raises(ConfigError, match=message):
        control.change(**wish)
    assert control.take_change(0) is None


def test_wishes_of_several_calls_become_one_change_and_are_taken_once():
    control = Control()
    control.change(learning_rate=1e-4)
    control.change(strength=0.2)
    control.change(learning_rate=2e-4)
    assert control.take_change(7) == Change(7, 2e-4, 0.2)
    assert control.take_change(8) is None
    control.save()
    assert (control.take_save(), control.take_save()) == (True, False)


def test_a_new_change_adds_to_one_of_the_same_iteration_and_voids_later_ones():
    recorded = [Change(1, learning_rate=1.0), Change(4, learning_rate=4.0), Change(9, strength=0.9)]
    assert with_change(recorded, Change(4, strength=0.4)) == [recorded[0], Change(4, 4.0, 0.4)]
    assert with_change(recorded, Change(4, learning_rate=5.0)) == [recorded[0], Change(4, 5.0)]
    assert with_change([], Change(2, strength=0.1)) == [Change(2, strength=0.1)]
    assert change_at(recorded, 4) == recorded[1]
    assert change_at(recorded, 5) is None


def test_each_setting_is_the_last_one_that_was_changed(config_file):
    config = load_config(config_file())
    changes = [Change(2, learning_rate=0.5), Change(4, strength=0.25), Change(6, 0.125, 0.75)]
    seen = [in_force(config, changes, i) for i in range(8)]
    assert [c.optimizer.learning_rate for c in seen] == [1e-3] * 2 + [0.5] * 4 + [0.125] * 2
    assert [c.grpo.strength for c in seen] == [0.3] * 4 + [0.25] * 2 + [0.75] * 2
    restored = replace(seen[7], optimizer=config.optimizer, grpo=config.grpo)
    assert restored == config


def test_waiting_ends_when_a_wish_comes_or_the_time_is_over():
    control = Control()
    control.pause()
    began = time.monotonic()
    control.wait(LOOK)
    assert time.monotonic() - began >= 0.9 * LOOK
    threading.Timer(0.05, control.resume).start()
    began = time.monotonic()
    control.wait(2 * GUARD)
    assert time.monotonic() - began < GUARD
