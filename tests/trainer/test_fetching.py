"""Offloaded weights: copied before they are needed, as many as the bytes allow, each on the device once."""

import weakref

import pytest
import torch
from small_step import step

from trainer.models.storage.fetching import LayerFetcher
from trainer.models.storage.memory import MemoryPlan

CPU = torch.device("cpu")
BYTES = 16  # of a weight made here


class Copies:
    """Counts the copies: `made`, `asked` for, `late` ones of these, and the `most` bytes that were alive at once."""

    def __init__(self):
        self.made, self.asked, self.late, self.most = 0, 0, 0, 0
        self._alive: dict[int, weakref.ref] = {}

    def add(self, copy: torch.Tensor) -> None:
        self.made += 1
        self._alive[self.made] = weakref.ref(copy.untyped_storage())
        self._alive = {n: ref for n, ref in self._alive.items() if ref() is not None}
        self.most = max(self.most, sum(ref().nbytes() for ref in self._alive.values()))


@pytest.fixture
def copies(monkeypatch):
    counts, begin, fetch = Copies(), LayerFetcher._begin, LayerFetcher.fetch

    def counted_begin(self, weight):
        copied = begin(self, weight)
        counts.add(copied.copy)
        return copied

    def counted_fetch(self, weight, *, backward):
        counts.asked += 1
        counts.late += weight not in self._copies
        return fetch(self, weight, backward=backward)

    monkeypatch.setattr(LayerFetcher, "_begin", counted_begin)
    monkeypatch.setattr(LayerFetcher, "fetch", counted_fetch)
    return counts


def fetcher_of(ahead: int) -> LayerFetcher:
    """That copies `ahead` weights ahead."""
    fetcher = LayerFetcher(CPU)
    fetcher.ahead = ahead * BYTES
    return fetcher


def weights_of(n: int) -> list[torch.Tensor]:
    return [torch.full((2, 2), float(i)) for i in range(n)]


def fetch_all(fetcher: LayerFetcher, weights) -> None:
    for weight in weights:
        assert torch.equal(fetcher.fetch(weight, backward=False), weight)


def coming(fetcher: LayerFetcher) -> list[float]:
    """The numbers of the weights that are copied ahead, in the order of their beginning."""
    return [copied.copy[0, 0].item() for copied in fetcher._copies.values()]


def test_a_fetched_weight_is_a_copy_even_on_the_same_device():
    weight = torch.randn(4, 3)
    copy = LayerFetcher(CPU).fetch(weight, backward=False)
    assert torch.equal(copy, weight)
    assert copy.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_the_order_of_one_pass_is_known_in_the_next(copies, ahead):
    weights, fetcher = weights_of(5), fetcher_of(ahead)
    for _ in range(3):
        fetch_all(fetcher, weights)
    assert coming(fetcher) == [0, 1, 2][:ahead]
    # the first pass knew nothing, and after the last one `ahead` copies are there beside the caller's
    assert copies.made == 15 + ahead
    assert copies.most == (1 + ahead) * BYTES


def test_the_next_one_comes_however_large_it_is(copies):
    fetcher = fetcher_of(0)
    fetch_all(fetcher, 2 * weights_of(3))
    assert len(coming(fetcher)) == 1


def test_a_weight_that_is_needed_again_soon_is_not_copied_again(copies):
    weights, fetcher = weights_of(3), fetcher_of(3)
    for _ in range(4):
        fetch_all(fetcher, weights)
    # each of the first pass, whose copies are gone, and each once more
    assert copies.made == 3 + 3
    assert copies.most == 3 * BYTES


def test_a_wrong_guess_costs_copies_and_gives_the_right_weight(copies):
    a, b, c = weights_of(3)
    fetch_all(fetcher_of(1), (a, b, a, c, a, c))
    # guesses: b after the second a (wrong), a after c, c after the third a, a at the end
    assert copies.made == 6 + 2


def test_another_order_now_and_then_is_right_and_within_the_bytes(copies):
    """As of rollout and update, and of layers that are asked for once an iteration."""
    weights, fetcher = weights_of(8), fetcher_of(3)
    for _ in range(3):
        fetch_all(fetcher, [*weights, weights[2], weights[0], *reversed(weights)])
    assert copies.most <= (1 + 3) * BYTES


def test_who_settles_lets_go_of_every_copy(copies):
    weights, fetcher = weights_of(4), fetcher_of(2)
    fetch_all(fetcher, 2 * weights)
    fetcher.settle()
    assert coming(fetcher) == []
    fetch_all(fetcher, weights)
    assert copies.made == 4 + 6 + 6


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("plan", "width"), [(MemoryPlan("bf16", 1.0), 4), (MemoryPlan("fp8", 0.6), 1)])
def test_a_step_stays_within_the_bytes_and_guesses_nearly_always(copies, monkeypatch, plan, width, checkpointing):
    ahead, largest = 2**14 * width, 32 * 192 * width  # bytes
    monkeypatch.setattr(LayerFetcher, "ahead", ahead)
    trained = step(plan, checkpointing=checkpointing)
    asked, late = copies.asked, copies.late
    x = trained.trajectories.x[0]
    for _ in range(3):
        trained.velocity(x, x.new_full((len(x),), 0.5), torch.zeros(len(x), dtype=torch.int64)).sum().backward()
    assert copies.asked - asked > 100
    assert ahead < copies.most <= ahead + largest
    # several forward passes before one backward pass: the guess after the last layer is wrong where they take turns
    assert copies.late - late <= 12


def test_the_same_layer_is_followed_by_another_one_within_the_backward_pass():
    """As when checkpointing runs a block again: its last layer is followed by its own backward pass."""
    fetcher = fetcher_of(1)
    a, b = weights_of(2)

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
    assert coming(fetcher) == [1]
