"""Memory that runs out: the phase is done again with half as many candidates at once, and the numbers stay."""

from dataclasses import replace

import pytest
import torch

from trainer.engine.micro_batch import MicroBatch, OutOfMemory
from trainer.engine.state import new_state
from trainer.errors import UserError
from trainer.events import Finished, Halved, IterationDone, Saved, SelfTested
from trainer.models.flux1.vae import Vae
from trainer.settings.config_file import load_config
from trainer.training.loop import train
from trainer.training.prepare import prepare
from trainer.training.run import start_run


class Full:
    """A device that is full: as often as `times`, whatever has more than `limit` rows runs out of memory."""

    def __init__(self, limit, times=99):
        self.limit, self.times, self.seen = limit, times, []
        self.armed = True

    def check(self, rows):
        self.seen.append(rows)
        if rows > self.limit and self.times and self.armed:
            self.times -= 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


def test_half_as_many_until_it_fits():
    full, told, batch = Full(limit=2), [], MicroBatch(12)
    batch.on_halved = lambda phase, size: told.append((phase, size))

    def work(size):
        full.check(size)
        return size

    assert batch.fit("rollout", work) == 2
    assert full.seen == [12, 6, 3, 2]
    assert told == [("rollout", 6), ("rollout", 3), ("rollout", 2)]
    assert batch.fit("update", work) == 2  # it stays small


def test_one_candidate_that_does_not_fit_is_told():
    with pytest.raises(
        OutOfMemory, match=r"out of memory in update with a single candidate \(CUDA out of memory. Tried"
    ):
        MicroBatch(3).fit("update", lambda size: Full(limit=0).check(size))


def test_a_run_whose_self_test_is_too_large_begins_smaller(make, monkeypatch):
    events, _ = run(inject(monkeypatch, make(), "rollout", Full(limit=2)))
    assert [(e.phase, e.micro_batch) for e in events if isinstance(e, Halved)] == [("self-test", 2)]
    assert sum(isinstance(e, IterationDone) for e in events) == 3


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        MicroBatch(4).fit("rollout", lambda size: 1 / 0)


@pytest.fixture
def make(config_file):
    return lambda *overrides: prepare(
        load_config(config_file(), ["run.rollout_batch=4", "model.keep_inputs=false", *overrides])
    )


def run(setup, full=None):
    """The events and the LoRA of a run; `full` is so from the first iteration on."""
    events, state = [], new_state(setup)

    def on_event(event):
        events.append(event)
        if full:
            full.armed = full.armed or isinstance(event, SelfTested)

    train(setup, state, on_event=on_event, save=lambda _: None)
    return events, {name: p.detach().clone() for name, p in setup.lora.items()}


def rewards(events):
    return [e.metrics["reward/colourfulness"] for e in events if isinstance(e, IterationDone)]


def inject(monkeypatch, setup, phase, full):
    """Have one phase of `setup` run out of memory."""
    network = setup.policy.network
    if phase == "decoding":

        class Checked(Vae):
            def decode(self, z):
                full.check(len(z))
                return super().decode(z)

        return replace(setup, policy=replace(setup.policy, autoencoder=Checked(setup.policy.vae.vae)))
    if phase == "reward":

        class Reward:
            def __init__(self, reward):
                self.reward = reward

            def score(self, images, prompts):
                full.check(len(images))
                return self.reward.score(images, prompts)

        return replace(setup, rewards={name: Reward(r) for name, r in setup.rewards.items()})
    forward = network.forward

    def checked(hidden_states, **inputs):
        if torch.is_grad_enabled() == (phase == "update"):
            full.check(len(hidden_states))
        return forward(hidden_states=hidden_states, **inputs)

    monkeypatch.setattr(network, "forward", checked)
    return setup


@pytest.mark.parametrize("phase", ["rollout", "decoding", "reward", "update"])
def test_a_run_goes_on_with_equal_numbers(make, monkeypatch, phase):
    expected_events, expected = run(make())
    full = Full(limit=1, times=2)
    full.armed = False
    events, weights = run(inject(monkeypatch, make(), phase, full), full)
    halved = [e for e in events if isinstance(e, Halved)]
    first = 8 if phase == "reward" else 4  # all pictures, or the micro-batch
    assert [(e.phase, e.micro_batch) for e in halved] == [(phase, first // 2), (phase, first // 4)]
    difference = max((weights[name] - value).abs().max().item() for name, value in expected.items())
    assert difference < 3e-5  # rounding, which Adam makes larger
    assert rewards(events) == pytest.approx(rewards(expected_events), rel=1e-5)


@pytest.mark.also_on_card
def test_gradients_of_an_attempt_that_failed_half_way_do_not_count(make, monkeypatch):
    """The second micro-batch of the first update fails, after the first one's gradient is there."""
    _, expected = run(make())
    setup, calls, full = make(), [], Full(limit=4)
    forward, full.armed = setup.policy.network.forward, False

    def checked(**inputs):
        if torch.is_grad_enabled() and full.armed:
            calls.append(len(inputs["hidden_states"]))
            if len(calls) == 2:
                raise torch.cuda.OutOfMemoryError("full")
        return forward(**inputs)

    monkeypatch.setattr(setup.policy.network, "forward", checked)
    _, weights = run(setup, full)
    assert calls[:3] == [4, 4, 2]
    assert all(torch.allclose(weights[name], value, atol=3e-5) for name, value in expected.items())


def test_a_run_that_cannot_go_on_is_saved_and_says_what_to_lower(config_file, monkeypatch):
    config = load_config(config_file(), [])
    events = []

    def load(config):
        setup = prepare(config)
        forward, calls = setup.policy.network.forward, []

        def checked(**inputs):
            calls.append(1)
            if torch.is_grad_enabled() and any(isinstance(e, IterationDone) for e in events):
                raise torch.cuda.OutOfMemoryError("full")
            return forward(**inputs)

        monkeypatch.setattr(setup.policy.network, "forward", checked)
        return setup

    with pytest.raises(UserError, match=r"out of memory in update.*: set run.offload_rewards = true; .*after 1 iter"):
        start_run(config, listeners=[events.append], load=load)
    assert [e.micro_batch for e in events if isinstance(e, Halved)] == [2, 1]
    assert [e.iteration for e in events if isinstance(e, Saved)] == [1]
    assert isinstance(events[-1], Finished)
    assert events[-1].state.startswith("failed: out of memory in update")
    ending, _ = start_run(config, resume=True)
    assert ending.kind == "complete"


def test_memory_that_runs_out_in_the_optimisers_step_is_told_too_and_nothing_is_lost(config_file, monkeypatch):
    """Its state is made at the first update: there is no smaller micro-batch to try.

    What half a step leaves is not saved: here the last checkpoint has all.
    """
    step, calls = torch.optim.AdamW.step, []

    def full(optimizer, *args):
        calls.append(1)
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("full")
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    config, events = load_config(config_file(), ["run.save_every=1"]), []
    with pytest.raises(UserError, match=r"out of memory beside the model calls \(full\): set .*Saved after 1 iter"):
        start_run(config, listeners=[events.append])
    assert [e.iteration for e in events if isinstance(e, Saved)] == [1]
    assert start_run(config, resume=True)[0].kind == "complete"
