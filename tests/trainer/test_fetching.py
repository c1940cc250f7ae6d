"""Offloaded weights: copied when they are needed, the next one ahead, never more than two at once."""

import weakref

import pytest
import torch
from small_step import step

from trainer.models.storage.fetching import LayerFetcher
from trainer.models.storage.memory import MemoryPlan

CPU = torch.device("cpu")


@pytest.fixture
def copies(monkeypatch):
    """Counts the copies: `made`, `asked` for, and the `most` that were alive at once."""
    counts = {"made": 0, "asked": 0, "most": 0}
    storages: list[weakref.ref] = []
    begin, fetch = LayerFetcher._begin, LayerFetcher.fetch

    def counted_begin(self, weight):
        copied = begin(self, weight)
        storages.append(weakref.ref(copied.copy.untyped_storage()))
        counts["made"] += 1
        counts["most"] = max(counts["most"], sum(ref() is not None for ref in storages))
        return copied

    def counted_fetch(self, weight, *, backward):
        counts["asked"] += 1
        return fetch(self, weight, backward=backward)

    monkeypatch.setattr(LayerFetcher, "_begin", counted_begin)
    monkeypatch.setattr(LayerFetcher, "fetch", counted_fetch)
    return counts


def test_a_fetched_weight_is_a_copy_even_on_the_same_device():
    weight = torch.randn(4, 3)
    copy = LayerFetcher(CPU).fetch(weight, backward=False)
    assert torch.equal(copy, weight)
    assert copy.data_ptr() != weight.data_ptr()


def test_the_order_of_one_pass_is_known_in_the_next(copies):
    weights, fetcher = [torch.full((2, 2), float(i)) for i in range(4)], LayerFetcher(CPU)
    for _ in range(3):
        for i, weight in enumerate(weights):
            assert fetcher.fetch(weight, backward=False).eq(i).all()
    # the first pass knew nothing, and after it one copy is ahead
    assert copies["made"] == 12 + 1


def test_a_wrong_guess_costs_one_copy_and_gives_the_right_weight(copies):
    a, b, c = (torch.full((2, 2), float(i)) for i in range(3))
    fetcher = LayerFetcher(CPU)
    for weight in (a, b, a, c, a, c):
        assert torch.equal(fetcher.fetch(weight, backward=False), weight)
    # guesses: b after the second a (wrong), a after c, c after the third a, a at the end
    assert copies["made"] == 6 + 2


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("plan", [MemoryPlan("bf16", 1.0), MemoryPlan("fp8", 0.6)])
def test_a_step_has_two_copies_alive_at_most_and_guesses_nearly_always(copies, plan, checkpointing):
    trained = step(plan, checkpointing=checkpointing)
    assert copies["most"] == 2
    first = dict(copies)
    x = trained.trajectories.x[0]
    for _ in range(3):
        trained.velocity(x, x.new_full((len(x),), 0.5), torch.zeros(len(x), dtype=torch.int64)).sum().backward()
    asked, made = copies["asked"] - first["asked"], copies["made"] - first["made"]
    assert asked > 100
    assert copies["most"] == 2
    # several forward passes before one backward pass: the guess after the last layer is wrong where they take turns
    assert made - asked <= 12


def test_the_same_layer_is_followed_by_another_one_within_the_backward_pass():
    """As when checkpointing runs a block again: its last layer is followed by its own backward pass."""
    fetcher = LayerFetcher(CPU)
    a, b = torch.randn(2, 2), torch.randn(2, 2)

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            fetcher.fetch(b, backward=False)
            fetcher.fetch(a, backward=True)
            return gradient

    fetcher.fetch(b, backward=False)
    fetcher.fetch(b, backward=False)
    Again.apply(torch.zeros(1, requires_grad=True)).backward()
    fetcher.fetch(b, backward=False)
    assert fetcher._ahead.weight is b
