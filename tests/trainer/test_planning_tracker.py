"""Counting live storages: each once, from its making to its end."""

import pytest
import torch
import torch.nn.functional as F

from trainer.planning.tracker import DEVICE, HOST, MemoryTracker, fused_attention

KIB = 1024
ROWS = 256  # float32 numbers of 1 KiB


@pytest.fixture
def tracker():
    with MemoryTracker() as tracker:
        yield tracker


def rows(n: int, **options) -> torch.Tensor:
    return torch.empty(n, ROWS, device="meta", **options)


def test_a_new_tensor_counts_until_it_is_freed(tracker):
    x = rows(3)
    assert tracker.live[DEVICE] == 3 * KIB
    y = x + 1
    assert tracker.live[DEVICE] == 6 * KIB
    del x
    assert tracker.live[DEVICE] == 3 * KIB
    del y
    assert tracker.live == {DEVICE: 0, HOST: 0}
    z = rows(1)
    assert tracker.live[DEVICE] == z.nbytes
    assert tracker.peak[DEVICE] == 6 * KIB


def test_views_share_their_storage_and_keep_it_alive(tracker):
    x = rows(4)
    view = x[1:2].view(-1).detach()
    assert tracker.live[DEVICE] == 4 * KIB
    del x
    assert tracker.live[DEVICE] == 4 * KIB
    del view
    assert tracker.live[DEVICE] == 0


def test_an_operation_in_place_takes_nothing(tracker):
    x = rows(4)
    x.mul_(2).add_(1)
    assert tracker.peak[DEVICE] == 4 * KIB


def test_a_storage_that_grows_counts_at_its_new_size(tracker):
    x = rows(1)
    x.resize_(3, ROWS)
    assert tracker.live[DEVICE] == 3 * KIB


def test_what_a_graph_keeps_counts_until_the_backward_pass(tracker):
    w = rows(1, requires_grad=True)
    loss = (w.exp() * 2).exp().sum()  # each exp keeps its result
    assert tracker.live[DEVICE] == 3 * KIB + 4
    loss.backward()
    del loss
    assert tracker.live[DEVICE] == 2 * KIB  # w and its gradient


def test_a_new_peak_begins_at_what_is_live(tracker):
    x = rows(2)
    del x
    y = rows(1)
    tracker.restart()
    assert tracker.peak[DEVICE] == KIB
    assert y.shape == (1, ROWS)


def test_other_devices_are_the_host(tracker):
    x = torch.empty(2, ROWS)
    assert tracker.live == {DEVICE: 0, HOST: 2 * KIB}
    y = x.to("meta")
    assert tracker.live == {DEVICE: 2 * KIB, HOST: 2 * KIB}
    assert y.is_meta


def test_a_placed_tensor_counts_where_it_is_said_to_be_and_moves():
    before = rows(5)
    tracker = MemoryTracker()
    tracker.place([before, before[0]], HOST)
    assert tracker.live == {DEVICE: 0, HOST: 5 * KIB}
    with tracker:
        before.add_(1)
    tracker.place([before], DEVICE)
    assert tracker.live == {DEVICE: 5 * KIB, HOST: 0}
    assert tracker.peak == {DEVICE: 5 * KIB, HOST: 5 * KIB}
    del before
    assert tracker.live == {DEVICE: 0, HOST: 0}


def test_what_is_made_for_a_place_counts_there(tracker):
    with tracker.making(HOST):
        x = rows(2)
    y = rows(1)
    assert tracker.live == {DEVICE: KIB, HOST: 2 * KIB}
    assert x.is_meta
    assert y.is_meta


@pytest.mark.parametrize(
    ("dtype", "width", "masked"),
    [
        (torch.bfloat16, 128, False),
        (torch.float32, 128, False),
        (torch.bfloat16, 512, False),
        (torch.float16, 64, True),
    ],
    ids=("flash", "float32", "wide head", "mask"),
)
def test_attention_never_holds_the_matrix_of_all_tokens(tracker, dtype, width, masked):
    tokens, heads = 16384, 2
    matrix = heads * tokens * tokens * dtype.itemsize
    q, k, v = (torch.empty(1, heads, tokens, width, dtype=dtype, device="meta", requires_grad=True) for _ in range(3))
    mask = torch.ones(1, 1, 1, tokens, dtype=torch.bool, device="meta").expand(1, 1, tokens, tokens) if masked else None
    with fused_attention():
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        assert out.shape == q.shape
        out.sum().backward()
    assert tracker.peak[DEVICE] < (2 * matrix if masked else matrix / 2)  # a mask of that size is the caller's
    assert q.grad.shape == q.shape


def test_attention_left_alone_would_count_that_matrix(tracker):
    q = torch.empty(1, 2, 4096, 64, dtype=torch.bfloat16, device="meta")
    F.scaled_dot_product_attention(q, q, q)
    assert tracker.peak[DEVICE] > 2 * 4096 * 4096 * 2


def test_real_tensors_keep_their_attention():
    q, k, v = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0)).unbind()
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    with fused_attention():
        assert torch.equal(F.scaled_dot_product_attention(q, k, v, is_causal=True), expected)
