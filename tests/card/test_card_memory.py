"""The card counts its memory, runs out of it, and keeps what was given back until it is asked."""

import card
import pytest
import torch

KIB = 1024


def rows(n: int, **options) -> torch.Tensor:
    return torch.zeros(n, 256, device="card", **options)


@pytest.fixture
def live():
    before = card.memory.live
    return lambda: card.memory.live - before


def test_memory_counts_from_its_making_to_the_end_of_its_last_view(live):
    x = rows(3)
    view = x[1:].detach()
    assert live() == 3 * KIB
    del x
    assert live() == 3 * KIB
    del view
    assert live() == 0


def test_what_a_graph_keeps_counts_until_the_backward_pass(live):
    w = rows(1, requires_grad=True)
    loss = (w.exp() * 2).exp().sum()  # each exp keeps its result
    assert live() == 3 * KIB + 4
    loss.backward()
    del loss
    assert live() == 2 * KIB  # w and its gradient


def test_the_peak_is_the_most_since_it_was_begun_anew():
    base = card.memory.live
    x = rows(4)
    del x
    y = rows(1)
    assert card.module.max_memory_allocated() == base + 4 * KIB
    card.module.reset_peak_memory_stats()
    assert card.module.max_memory_allocated() == card.module.memory_allocated() == base + KIB
    assert y.shape == (1, 256)


def test_a_tensor_that_grows_counts_at_its_new_size(live):
    x = torch.empty(0, device="card")
    torch.cat([rows(1), rows(2)], out=x)
    assert live() == 3 * KIB


def test_beyond_the_limit_there_is_no_memory_and_nothing_is_lost():
    before = card.memory.live
    card.memory.limit = before + 2 * KIB
    x = rows(1)
    with pytest.raises(torch.OutOfMemoryError, match="2048 bytes"):
        rows(2)
    assert card.memory.live == before + KIB
    assert torch.equal(rows(1), x)


def test_memory_given_back_is_kept_until_the_cache_is_emptied():
    module = card.module
    base, (free, total) = module.memory_reserved(), module.mem_get_info()
    x = rows(8)
    del x
    assert module.memory_reserved() == base + 8 * KIB
    assert module.mem_get_info() == (free - 8 * KIB, total)
    y = rows(3)  # out of what was kept
    assert module.memory_reserved() == module.max_memory_reserved() == base + 8 * KIB
    module.empty_cache()
    assert module.memory_reserved() == module.memory_allocated() == base + 3 * KIB
    assert module.mem_get_info() == (free - y.nbytes, total)


def test_what_is_kept_gives_way_before_memory_runs_out():
    card.memory.limit = card.memory.live + 4 * KIB
    x = rows(4)
    del x
    y = rows(2)
    assert rows(2).shape == y.shape
    assert card.memory.reserved <= card.memory.limit


def test_a_fraction_is_a_limit():
    card.module.set_per_process_memory_fraction(0.25)
    assert card.module.mem_get_info()[1] == card.TOTAL // 4


def test_an_injected_failure_comes_once_at_its_allocation(live):
    card.memory.fails = {card.memory.taken + 2}
    x = rows(1)
    with pytest.raises(torch.OutOfMemoryError, match="injected"):
        rows(1)
    assert live() == x.nbytes
    assert rows(1).shape == x.shape
    assert not card.memory.fails


def test_an_older_card_has_no_bf16():
    assert card.module.is_bf16_supported()
    card.module.capability = (7, 5)
    assert card.module.get_device_capability() == (7, 5)
    assert not card.module.is_bf16_supported()
