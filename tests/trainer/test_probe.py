"""`grpo.probe`: the strength of a training is the one at which neighborhoods agree on what to change."""

import math

import pytest
import torch
from loop_runs import run, same, setup_of, weights

from trainer.choices import PROBED
from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, gradient, pairs_of
from trainer.engine.state import new_state
from trainer.errors import ConfigError, Stopped
from trainer.events import Change, Changed, IterationDone, Probed
from trainer.settings.config_file import load_config
from trainer.training import loop
from trainer.training.control import Control
from trainer.training.probe import FAR, agreement, probe

REWARDS = "[[rewards]]\nkind = 'colourfulness'\n[[rewards]]\nkind = 'sharpness'\nheld_out = true"
PROBE = ["grpo.probe=4", "grpo.prompts_per_iteration=2"]


@pytest.fixture
def make(config_file):
    return lambda *overrides: setup_of(config_file, overrides=[*PROBE, *overrides], rewards=REWARDS)


def test_agreement_is_the_mean_cosine_of_every_two_gradients(make):
    """By a second way: all gradients kept, and each two of them compared."""
    setup, gradients = make(), []
    for iteration in (FAR, FAR + 1):
        group = collect(setup, iteration, Clock(setup.policy.device))
        loss_of = setup.objective.prepare(group.candidates.trajectories, group.advantages)
        for prompt in range(2):
            mine = pairs_of(setup, group, iteration).only(torch.arange(2) == prompt)
            for p in setup.lora.values():
                p.grad = None
            gradient(setup, group.candidates, mine, loss_of, 2)
            gradients.append(torch.cat([p.grad.flatten() for p in setup.lora.values() if p.grad is not None]))
    cosines = [torch.cosine_similarity(gradients[i], gradients[j], dim=0).item() for i in range(4) for j in range(i)]
    for p in setup.lora.values():
        p.grad = None
    assert agreement(setup) == pytest.approx(sum(cosines) / 6, abs=1e-5)
    assert all(p.grad is None for p in setup.lora.values())


def test_it_counts_the_groups_that_were_asked_for(make, monkeypatch):
    setup, seen = make("grpo.probe=3"), []
    monkeypatch.setattr("trainer.training.probe.gradient", lambda *args: seen.append(args[2]) or gradient(*args))
    agreement(setup)
    assert len(seen) == 3
    assert all(len(pairs.prompt.unique()) == 1 for pairs in seen)


def test_groups_whose_rewards_are_alike_do_not_count(make):
    setup = make()
    setup.rewards["colourfulness"] = Alike()
    assert math.isnan(agreement(setup))
    assert probe(setup, 0).strength == setup.config.grpo.strength


class Alike:
    def score(self, images, prompts):
        return torch.ones(len(images))


def test_rewards_that_are_held_out_are_not_asked(make):
    setup = make()
    setup.rewards["sharpness"] = None
    assert math.isfinite(agreement(setup))


def test_the_strength_where_they_agree_most_is_taken(make, monkeypatch):
    asked = []

    def scripted(setup, between):
        asked.append((setup.config.grpo.strength, setup.config.grpo.hold))
        return {0.1: math.nan, 0.3: 0.1, 0.5: 0.4, 0.7: 0.2, 1.0: -0.1}[setup.config.grpo.strength]

    monkeypatch.setattr("trainer.training.probe.agreement", scripted)
    setup = make("grpo.hold=3", "sampling.steps=4", "grpo.trained_steps=1", "grpo.step_choice='early'")
    found = probe(setup, 7)
    assert (found.iteration, found.strength) == (7, 0.5)
    assert asked == [(s, 0.0) for s in PROBED]  # what is held has no gradient yet
    assert str(found).startswith(
        "strength 0.5, where neighborhoods agree most on what to change (0.1: nan, 0.3: 0.100,"
    )


def test_a_training_takes_it_for_all_of_its_iterations(make, monkeypatch):
    monkeypatch.setattr(loop, "probe", lambda setup, iteration, between: Probed(iteration, {0.7: 1.0}, 0.7))
    setup = make("run.iterations=2")
    state = new_state(setup)
    _, _, events = run(setup, state)
    kinds = [type(e) for e in events]
    assert kinds.index(Probed) < kinds.index(Changed) < kinds.index(IterationDone)
    assert [e.metrics["strength"] for e in events.of(IterationDone)] == [0.7, 0.7]
    assert state.changes == [Change(0, strength=0.7)]


def test_a_training_with_that_strength_from_the_start_is_the_same(make):
    setup = make("run.iterations=2")
    _, _, events = run(setup)
    (found,) = events.of(Probed)
    other = make("run.iterations=2", "grpo.probe=0", f"grpo.strength={found.strength}")
    run(other)
    assert same(weights(setup), weights(other))


def test_a_resumed_run_does_not_probe_again(make, monkeypatch):
    monkeypatch.setattr(loop, "probe", None)
    setup = make("run.iterations=1")
    state = new_state(setup)
    state.changes = [Change(0, strength=0.5)]  # found before a run was stopped in its first iteration
    _, _, events = run(setup, state)
    assert events.of(IterationDone)[0].metrics["strength"] == 0.5
    setup = make("run.iterations=2")
    state = new_state(setup)
    state.iteration = 1
    run(setup, state)


def test_a_stop_ends_it_at_once_and_leaves_nothing(make):
    setup = make()

    def stop():
        raise Stopped

    before = weights(setup)
    setup.policy.before_call = stop
    with pytest.raises(Stopped):
        agreement(setup)
    assert same(before, weights(setup))


def test_a_stop_that_is_asked_for_meanwhile_is_obeyed_before_its_next_iteration(make):
    setup, control = make(), Control()
    drawn = setup.rewards["colourfulness"]

    class Stopping:
        calls = 0

        def score(self, images, prompts):
            self.calls += 1
            control.stop()
            return drawn.score(images, prompts)

    setup.rewards["colourfulness"] = reward = Stopping()
    reason, state, events = run(setup, control=control)
    assert (reason, state.iteration, state.changes) == ("stopped", 0, [])
    assert reward.calls == 1
    assert not events.of(Probed)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grpo.probe=1"], "grpo.probe = 1: must be 0, or at least 2"),
        (["grpo.objective='nft'"], "grpo.probe = 4: must be 0: nft has nothing of the kind"),
    ],
)
def test_what_it_cannot_do_is_said(config_file, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config_file(), [*PROBE, *overrides])
