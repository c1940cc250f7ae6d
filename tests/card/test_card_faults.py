"""Each kind of fault of a GPU path, planted once in the trainer: the card notices it."""

import gc

import card
import pytest
import torch

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state
from trainer.events import SelfTested
from trainer.models.flux1 import vae
from trainer.models.storage.fetching import LayerFetcher
from trainer.rewards import RewardError
from trainer.settings.config_file import load_config
from trainer.training.loop import train
from trainer.training.prepare import prepare

OFFLOADED = ["model.memory='bf16'", "model.offload=1.0"]


@pytest.fixture
def make(config_file):
    def make(*overrides):
        usual = ["model.device='card'", "model.dtype='float32'", "run.rollout_batch=4"]
        return prepare(load_config(config_file(), [*usual, *overrides]))

    with card.pinning():
        yield make


def one_iteration(setup, state=None) -> None:
    state = state or new_state(setup)
    group = collect(setup, 0, Clock(setup.policy.device))
    improve(setup, state, group, pairs_of(setup, group, 0))


def test_without_a_fault_an_iteration_passes(make):
    one_iteration(make(*OFFLOADED))
    assert not card.races


def test_a_tensor_left_on_the_host_is_refused(make):
    """As FLUX.1-Fill's mask was."""
    setup = make()
    original = setup.policy.velocity

    def velocity(conditioning, geometry):
        evaluate = original(conditioning, geometry)
        return lambda x, sigma, rows: evaluate(x, sigma, rows) + torch.zeros(1, 1, 64)

    setup.policy.velocity = velocity
    with pytest.raises(RuntimeError, match=r"same device.*card:0 and cpu"):
        one_iteration(setup)


def plant_no_event(monkeypatch):
    monkeypatch.setattr(LayerFetcher, "_arrived", lambda self, copied: copied.copy)


def plant_no_stream(monkeypatch):
    monkeypatch.setattr(card.Stream, "wait_stream", lambda self, other: None)


def plant_reuse(monkeypatch):
    """The copies that are made ahead are let go of while they are under way."""
    fetch = LayerFetcher.fetch

    def forgetful(self, weight, *, backward):
        copy = fetch(self, weight, backward=backward)
        self._copies.clear()
        return copy

    monkeypatch.setattr(LayerFetcher, "fetch", forgetful)


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (plant_no_event, "yet to fill"),
        (plant_no_stream, "may still use"),
        (plant_reuse, "may still use"),
    ],
    ids=("no wait_event", "no wait_stream", "a buffer used again too early"),
)
def test_a_missing_wait_of_an_offloaded_run_is_refused(make, monkeypatch, plant, what):
    setup = make(*OFFLOADED)
    plant(monkeypatch)
    with pytest.raises(card.Race, match=what):
        one_iteration(setup)
    card.races.clear()


def test_if_the_card_lets_a_missing_wait_pass_the_engine_notices(make, monkeypatch):
    """As on a real card, where nothing but the numbers tells."""
    setup = make(*OFFLOADED)
    plant_no_event(monkeypatch)
    card.Streams.strict = False
    told = []
    with pytest.raises(RewardError, match="pixel of nan"):
        train(setup, new_state(setup), on_event=told.append, save=lambda state: None)
    assert next(event for event in told if isinstance(event, SelfTested)).cause
    card.races.clear()


def test_memory_read_before_it_is_written_is_not_a_number(make, monkeypatch):
    setup = make()
    decode = vae.Vae.decode
    monkeypatch.setattr(vae.Vae, "decode", lambda self, z: decode(self, z + torch.empty_like(z)))
    with pytest.raises(RewardError, match="pixel of nan"):
        one_iteration(setup)


def levels(setup) -> list[int]:
    """Bytes after the second and the third iteration."""
    found, state = [], new_state(setup)
    for _ in range(3):
        one_iteration(setup, state)
        gc.collect()
        found.append(card.memory.live)
    return found[1:]


def test_a_leak_raises_the_level(make):
    setup, kept = make(), []
    flat = levels(setup)
    assert flat[0] == flat[1]
    original = setup.policy.decode
    setup.policy.decode = lambda x, geometry: kept.append(original(x, geometry)) or kept[-1]
    rising = levels(setup)
    assert rising[1] > rising[0]


def test_a_wait_in_the_inner_loop_is_counted_with_its_place(make):
    setup = make()
    original = setup.policy.velocity

    def velocity(conditioning, geometry):
        evaluate = original(conditioning, geometry)

        def waiting(x, sigma, rows):
            if sigma.max().item() > 1:
                raise ValueError
            return evaluate(x, sigma, rows)

        return waiting

    card.waits.clear()
    one_iteration(setup)
    assert not [wait for wait in card.waits if wait.function == "waiting"]
    setup.policy.velocity = velocity
    card.waits.clear()
    one_iteration(setup)
    found = [wait for wait in card.waits if wait.function == "waiting"]
    assert len(found) == 10  # 4 steps of 8 candidates, 4 at once, and 8 pairs
    assert {wait.kind for wait in found} == {"item"}
