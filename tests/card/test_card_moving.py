"""A policy that leaves the card and comes back is the one that it was, with its optimiser and average."""

import card
import pytest
import torch

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import follow, new_state
from trainer.models.storage.moving import bytes_on, move, settle
from trainer.settings.config_file import load_config
from trainer.training.prepare import prepare

HOST = torch.device("cpu")
# left to itself the rollout would take as many at once as there is room for: other numbers, by rounding
CARD = ["model.device='card'", "model.dtype='bfloat16'", "optimizer.ema_decay=0.5", "run.rollout_batch=4"]
PLANS = {
    "bf16": [],
    "fp8": ["model.memory='fp8'"],
    "half offloaded": ["model.memory='fp8'", "model.offload=0.5"],
    "offloaded": ["model.offload=1.0"],
    "DoRA": ["lora.variant='dora'"],
}


@pytest.fixture
def make(config_file):
    # a tensor of the card is of a class of its own: one that moves cannot take the other's data, but change places
    torch.__future__.set_swap_module_params_on_conversion(True)

    def make(plan: str):
        return prepare(load_config(config_file(), [*CARD, *PLANS[plan]]))

    with card.pinning():
        yield make
    torch.__future__.set_swap_module_params_on_conversion(False)


def iteration(setup, state, number: int) -> None:
    group = collect(setup, number, Clock(setup.policy.device))
    improve(setup, state, group, pairs_of(setup, group, number))


def away_and_back(setup, state) -> int:
    """Bytes that were left on the card meanwhile, of the network."""
    move(setup.policy.network, HOST)
    follow(state, HOST)
    left = bytes_on(setup.policy.network, card.CARD)
    move(setup.policy.network, card.CARD)
    follow(state, card.CARD)
    return left


@pytest.mark.parametrize("plan", PLANS)
def test_a_step_after_the_way_there_and_back_is_the_one_without_it(make, plan):
    weights, averages = [], []
    for moves in (False, True):
        setup = make(plan)
        state = new_state(setup)
        objects = {name: id(p) for name, p in setup.lora.items()}
        iteration(setup, state, 0)
        if moves:
            assert away_and_back(setup, state) == 0
        iteration(setup, state, 1)
        assert {name: id(p) for name, p in setup.lora.items()} == objects
        settle(setup.policy.network)
        weights.append({name: p.detach().cpu() for name, p in setup.lora.items()})
        averages.append({name: p.cpu() for name, p in state.average.shadow.items()})
    assert not card.races
    for still, moved in (weights, averages):
        assert all(torch.equal(still[name], moved[name]) for name in still)
    assert any(p.abs().max() > 0 for name, p in weights[0].items() if "lora_B" in name)


@pytest.mark.parametrize("plan", PLANS)
def test_away_it_leaves_nothing_on_the_card(make, plan):
    setup = make(plan)
    state = new_state(setup)
    iteration(setup, state, 0)
    inside = card.memory.live
    move(setup.policy.network, HOST)
    follow(state, HOST)
    assert inside > 0
    assert card.memory.live == 0


def test_what_is_offloaded_stays_in_the_pinned_memory_that_it_has(make):
    setup = make("offloaded")
    waiting = [layer.weight for layer in setup.policy.network.modules() if getattr(layer, "fetcher", None)]
    places = [weight.data_ptr() for weight in waiting]
    away_and_back(setup, new_state(setup))
    assert waiting
    assert [weight.data_ptr() for weight in waiting] == places
    assert all(weight.is_pinned() for weight in waiting)


def test_a_way_that_breaks_off_can_be_gone_back(make):
    setup = make("bf16")
    network = setup.policy.network
    whole = bytes_on(network, card.CARD)
    move(network, HOST)
    card.memory.limit = card.memory.live + whole // 2
    with pytest.raises(torch.OutOfMemoryError):
        move(network, card.CARD)
    move(network, HOST)
    assert bytes_on(network, card.CARD) == 0
    card.memory.limit = None
    move(network, card.CARD)
    assert bytes_on(network, card.CARD) == whole
