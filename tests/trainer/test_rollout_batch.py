"""The rollout has batches of its own: what passes through the model at once, where copies fill up, who is halved."""

from collections import Counter

import pytest
import torch

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state
from trainer.events import Halved, IterationDone, SelfTested
from trainer.models.storage.memory import blocks
from trainer.settings.config_file import load_config
from trainer.settings.run import RunSettings
from trainer.training.base_noises import base_pictures
from trainer.training.evaluate import evaluate
from trainer.training.loop import train
from trainer.training.prepare import prepare
from trainer.training.self_test import self_test

CANDIDATES, STEPS, PAIRS = 8, 4, 8  # of the config: 2 prompts of 4, B 2 and K 2


@pytest.fixture
def make(config_file):
    return lambda *overrides: prepare(load_config(config_file(), overrides))


@pytest.fixture
def rows(monkeypatch):
    """How many rows passed through the model at once: (with gradient or not, rows) -> times."""

    def watch(setup, before=lambda rows: None):
        seen, forward = Counter(), setup.policy.network.forward

        def counted(**inputs):
            count = len(inputs["hidden_states"])
            before(count)
            seen[torch.is_grad_enabled(), count] += 1
            return forward(**inputs)

        monkeypatch.setattr(setup.policy.network, "forward", counted)
        return seen

    return watch


def iteration(setup) -> dict[str, float]:
    group = collect(setup, 0, Clock(setup.policy.device))
    metrics, skipped = improve(setup, new_state(setup), group, pairs_of(setup, group, 0))
    assert not skipped
    return {**metrics, "reward": group.scores["colourfulness"].mean().item()}


def test_left_to_itself_the_rollout_has_the_updates_batches():
    assert RunSettings(micro_batch=3).drawn_at_once == 3
    assert RunSettings(micro_batch=3, rollout_batch=5).drawn_at_once == 5


@pytest.mark.also_on_card
def test_left_to_the_planner_a_device_that_counts_memory_draws_all_at_once_if_they_fit(make, device):
    expected = {"cpu": 4, "card": CANDIDATES}[device]
    setup = make()
    assert (setup.micro_batch.size, setup.rollout_batch.size) == (4, expected)


@pytest.mark.also_on_card
@pytest.mark.parametrize(
    ("rollout", "update", "expected"),
    [
        (8, 2, {(False, 8): STEPS, (True, 2): PAIRS // 2}),
        (3, 4, {(False, 3): 2 * STEPS, (False, 2): STEPS, (True, 4): PAIRS // 4}),
        (3, 3, {(False, 3): 3 * STEPS, (True, 3): 3}),  # equal, so short batches are filled up
        (8, 3, {(False, 8): STEPS, (True, 3): 2, (True, 2): 1}),
    ],
)
def test_rollout_and_update_take_as_many_at_once_as_each_is_told(make, rows, rollout, update, expected):
    setup = make(f"run.rollout_batch={rollout}", f"run.micro_batch={update}", "model.keep_inputs=false")
    seen = rows(setup)
    iteration(setup)
    assert seen == expected


@pytest.mark.also_on_card
def test_pictures_without_a_ratio_are_drawn_without_copies(make, rows):
    setup = make("run.rollout_batch=4", "evaluation.prompts=['a', 'b', 'c', 'd', 'e', 'f']")
    seen = rows(setup)
    evaluate(setup, 0)
    assert seen == {(False, 4): STEPS, (False, 2): STEPS}
    seen.clear()
    base_pictures(setup, [0, 1], [5, 6])
    assert seen == {(False, 2): STEPS}


def test_compiled_blocks_see_full_batches_alone(make, monkeypatch):
    setup = make("run.micro_batch=4")
    monkeypatch.setattr(blocks(setup.policy.network)[0], "_compiled_call_impl", setup.policy.network.forward)
    seen = []
    monkeypatch.setattr(setup.policy, "velocity", lambda *_: lambda x, sigma, rows: seen.append(len(x)) or x)
    base_pictures(setup, [0, 1], [5, 6])
    assert seen == [4] * STEPS


@pytest.mark.also_on_card
def test_another_batch_for_the_rollout_changes_nothing_but_rounding(make):
    equal = iteration(make("run.micro_batch=2", "run.rollout_batch=2"))
    other = iteration(make("run.micro_batch=2", "run.rollout_batch=8"))
    assert equal["velocity_error"] == 0
    assert other["velocity_error"] < 1e-5
    assert other["ratio_error"] < 1e-5
    for name in ("reward", "grad_norm"):
        assert other[name] == pytest.approx(equal[name], rel=1e-3), name


@pytest.mark.also_on_card
@pytest.mark.parametrize(("phase", "with_gradient"), [("rollout", False), ("update", True)])
def test_who_runs_out_of_memory_is_halved_and_the_other_is_not(make, rows, phase, with_gradient):
    setup, events = make("run.iterations=1", "run.rollout_batch=8"), []

    def full(count):
        tested = any(isinstance(e, SelfTested) for e in events)
        if tested and torch.is_grad_enabled() == with_gradient and count > 2:
            raise torch.OutOfMemoryError("full")

    rows(setup, full)
    train(setup, new_state(setup), on_event=events.append, save=lambda _: None)
    sizes = {"rollout": setup.rollout_batch.size, "update": setup.micro_batch.size}
    assert sizes == {"rollout": 8, "update": 4} | {phase: 2}
    assert {e.phase for e in events if isinstance(e, Halved)} == {phase}
    assert sum(isinstance(e, IterationDone) for e in events) == 1


@pytest.mark.also_on_card
def test_the_self_test_holds_the_updates_batch_against_the_rollouts(make, monkeypatch):
    """A model whose numbers depend on how many rows it gets; 4 candidates are a batch of the rollout."""
    found = {}
    for rollout in (3, 4):
        setup = make("run.micro_batch=3", f"run.rollout_batch={rollout}")
        forward = setup.policy.network.forward

        def spoilt(forward=forward, **inputs):
            v = forward(**inputs)[0]
            return (v * (1 + 0.01 * len(v)),)

        monkeypatch.setattr(setup.policy.network, "forward", spoilt)
        found[rollout] = self_test(setup, 0)
    assert (found[3].velocity_error, found[3].cause) == (0, "")
    assert found[4].velocity_error == pytest.approx(0.03 / 1.04, rel=1e-2)
    assert "candidates beside one" in found[4].cause


@pytest.mark.also_on_card
def test_the_self_tests_rollout_is_halved_for_itself(make, rows):
    setup = make("run.micro_batch=2", "run.rollout_batch=4")

    def full(count):
        if count > 3:
            raise torch.OutOfMemoryError("full")

    rows(setup, full)
    assert self_test(setup, 0).velocity_error < 1e-5
    assert (setup.rollout_batch.size, setup.micro_batch.size) == (2, 2)
