"""The loop, if something in it goes wrong or somebody stops it: nothing is lost, and nothing half done stays."""

import math
from functools import partial

import pytest
import torch
from asked import Asked
from loop_runs import ScriptedReward, run, same, setup_of, weights

from trainer.engine.state import new_state
from trainer.errors import Stopped
from trainer.events import Ending, Finished, IterationDone, Skipped


@pytest.fixture
def make(config_file):
    return partial(setup_of, config_file)


# two groups in each iteration; a fault is forgiven less often than a chance
@pytest.mark.parametrize(
    ("value", "iterations", "cause"),
    [(0.25, 15, "no group has rewards that differ"), (math.nan, 3, "a reward was not a finite number")],
)
def test_groups_without_an_update_one_after_the_other_end_the_run(make, value, iterations, cause):
    overrides = ["run.iterations=20", "sampling.steps=2"]
    setup = make(ScriptedReward(lambda call, n: torch.full((n,), value)), overrides=overrides)
    before = weights(setup)
    reason, state, events = run(setup)
    assert reason.startswith("gave up: one iteration after the other without an update")
    assert reason.endswith(cause)
    assert len(events.of(Skipped)) == iterations
    assert [e for e in events if isinstance(e, tuple)][-1] == ("saved", iterations)
    assert (state.updates, state.iteration) == (0, iterations)
    assert same(weights(setup), before)


def test_a_reward_of_0_and_1_that_is_alike_by_chance_does_not_end_the_run(make):
    """At a success of 1 in 20, three groups of 12 in a row are alike with a chance of 16 %."""
    setup = make(
        ScriptedReward(lambda call, n: torch.eye(n)[0] if call == 28 else torch.zeros(n)),
        overrides=["run.iterations=31", "grpo.prompts_per_iteration=1", "sampling.steps=2"],
    )
    reason, state, _ = run(setup)
    assert (reason, state.updates) == ("complete", 1)


def test_two_bad_iterations_are_forgiven(make):
    def script(call, n):
        return torch.full((n,), float("nan")) if call in (1, 2, 4, 5) else torch.arange(n).float()

    setup = make(ScriptedReward(script), overrides=["run.iterations=7"])
    reason, state, events = run(setup)
    assert reason == "complete"
    assert [e.iteration for e in events.of(Skipped)] == [1, 2, 4, 5]
    assert {e.reason for e in events.of(Skipped)} == {"a reward was not a finite number"}
    assert state.updates == 3


def test_one_bad_group_does_not_stop_the_other(make):
    def script(call, n):
        scores = torch.arange(n).float()
        scores[0] = float("inf")  # in the first of two groups
        return scores

    setup = make(ScriptedReward(script))
    _, state, events = run(setup)
    event = events.of(IterationDone)[0]
    assert state.updates == 3
    assert event.metrics["skipped_groups"] == 1
    assert event.advantages[0].eq(0).all()
    assert event.anchors[0].sum() == 0
    assert event.anchors[1].sum() == 4  # two at each of two steps
    assert all(torch.isfinite(p).all() for p in setup.lora.values())


@pytest.mark.also_on_card
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(make):
    setup = make(overrides=["run.iterations=1"])
    run(setup)
    state = new_state(setup)
    state.iteration = 0
    before, original = weights(setup), setup.policy.velocity

    def broken(*inputs):
        velocity = original(*inputs)

        def sometimes(x, sigma, rows):
            v = velocity(x, sigma, rows)
            return v * float("nan") if torch.is_grad_enabled() else v

        return sometimes

    setup.policy.velocity = broken
    _, state, events = run(setup, state)
    assert events.of(Skipped)[0].reason == "the gradient was not finite"
    assert same(weights(setup), before)
    assert state.updates == 0
    assert not state.optimizer.state


def test_a_stop_is_answered_between_iterations_and_saves(make):
    setup = make(overrides=["run.iterations=50"])
    asked = iter([False, False, False, False, True])
    reason, state, events = run(setup, control=Asked(lambda: next(asked)))
    assert reason == "stopped"
    assert state.iteration == 4
    assert events[-2:] == [("saved", 4), Finished(4, Ending("stopped"))]


@pytest.fixture(scope="module")
def uninterrupted():
    """Weights and their average at the end of a run that nobody stopped, by device."""
    return {}


@pytest.mark.also_on_card
@pytest.mark.parametrize("calls", [1, 7, 9, 12, 14, 15])  # in rollout, decoding, the first, second and third update
def test_a_stop_in_mid_iteration_undoes_that_iteration_and_loses_nothing(make, device, uninterrupted, calls):
    """Two iterations, a stop `calls` model calls into the third, and on: equals never having stopped."""
    overrides = ["grpo.updates_per_rollout=3", "run.iterations=4", "run.rollout_batch=4"]
    if device not in uninterrupted:
        whole = make(overrides=overrides)
        _, ended, _ = run(whole)
        uninterrupted[device] = weights(whole), ended.average.shadow
    expected, average = uninterrupted[device]

    setup = make(overrides=overrides)
    total, seen, state = [0], [], new_state(setup)

    def count():
        total[0] += 1
        if state.iteration == 2:
            seen.append(total[0])
            if len(seen) == calls:
                raise Stopped

    setup.policy.before_call = count
    reason, state, events = run(setup, state)
    assert reason == "stopped"
    assert len(seen) == calls
    assert (state.iteration, state.updates) == (2, 6)
    assert events[-1] == Finished(2, Ending("stopped"))
    assert all(p.grad is None for p in setup.lora.values())
    setup.policy.before_call = lambda: None
    reason, state, _ = run(setup, state)
    assert reason == "complete"
    assert same(weights(setup), expected)
    assert same(state.average.shadow, average)
