"""Counting kernels: the arithmetic and the bytes of each, against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import register_flop_formula

from trainer.planning.kernels import ATTENTION, CAST, COPY, ELEMENTWISE, FETCH, PRODUCT, THIN, Kernel
from trainer.planning.tracker import DEVICE, HOST, MemoryTracker, fused_attention

BF16 = torch.bfloat16
ROWS, IN, OUT = 6144, 3072, 4096


@pytest.fixture
def tracker():
    return MemoryTracker()


def tensor(*shape, dtype=BF16, **options):
    return torch.empty(*shape, dtype=dtype, device="meta", **options)


def counted(tracker, work) -> dict[Kernel, int]:
    with tracker, tracker.kernels.counting("here"):
        work()
    return dict(tracker.kernels.work["here"])


def test_a_product_is_its_multiplications_and_additions_and_three_matrices(tracker):
    x, w, b = tensor(ROWS, IN), tensor(OUT, IN), tensor(OUT)
    moved = 2 * (ROWS * IN + OUT * IN + OUT + ROWS * OUT)
    assert counted(tracker, lambda: F.linear(x, w, b)) == {Kernel(PRODUCT, 2, 2 * ROWS * IN * OUT, moved): 1}


def test_a_loras_products_are_thin_and_one_in_place_reads_what_it_adds_to(tracker):
    x, a, b, y = tensor(ROWS, IN), tensor(16, IN), tensor(OUT, 16), tensor(ROWS, OUT)
    assert counted(tracker, lambda: y.addmm_(x @ a.T, b.T)) == {
        Kernel(THIN, 2, 2 * ROWS * IN * 16, 2 * (ROWS * IN + 16 * IN + ROWS * 16)): 1,
        Kernel(THIN, 2, 2 * ROWS * 16 * OUT, 2 * (ROWS * 16 + 16 * OUT + 2 * ROWS * OUT)): 1,
    }


def test_products_of_8_bit_numbers_are_known_by_their_width(tracker):
    x, w = (tensor(size, IN, dtype=torch.float8_e4m3fn) for size in (ROWS, OUT))
    scales = tensor(ROWS, 1, dtype=torch.float32), tensor(1, OUT, dtype=torch.float32)
    found = counted(tracker, lambda: torch._scaled_mm(x, w.T, *scales, out_dtype=BF16))
    moved = ROWS * IN + OUT * IN + 4 * (ROWS + OUT) + 2 * ROWS * OUT
    assert found == {Kernel(PRODUCT, 1, 2 * ROWS * IN * OUT, moved): 1}


def test_views_and_allocations_are_no_kernels(tracker):
    x = tensor(4, 6)

    def work():
        x.t().reshape(3, 8)[1:].unsqueeze(0).expand(5, 2, 8).detach()
        torch.empty_like(x), x.new_empty(3)

    assert [kernel.kind for kernel in counted(tracker, work)] == [COPY]  # of the transposed matrix, reshaped


def test_elements_count_once_however_often_a_stride_of_0_repeats_them(tracker):
    x, row = tensor(4, 6), tensor(1, 6)
    assert counted(tracker, lambda: x * row.expand(4, 6)) == {Kernel(ELEMENTWISE, 2, 0, 2 * (24 + 6 + 24)): 1}


def test_what_is_written_in_place_is_read_too_unless_it_is_overwritten(tracker):
    x, y = tensor(4, 6), tensor(4, 6)
    assert counted(tracker, lambda: x.mul_(y)) == {Kernel(ELEMENTWISE, 2, 0, 2 * 3 * 24): 1}
    assert counted(MemoryTracker(), lambda: x.copy_(y)) == {Kernel(COPY, 2, 0, 2 * 2 * 24): 1}
    assert counted(MemoryTracker(), x.zero_) == {Kernel(ELEMENTWISE, 2, 0, 2 * 24): 1}


def test_a_cast_reads_one_precision_and_writes_another(tracker):
    x = tensor(4, 6, dtype=torch.float8_e4m3fn)
    assert counted(tracker, lambda: x.to(BF16)) == {Kernel(CAST, 1, 0, 24 + 2 * 24): 1}


def test_rows_that_are_picked_are_read_and_the_others_are_not(tracker):
    table, rows = tensor(1000, 8), torch.zeros(3, dtype=torch.int64, device="meta")
    assert counted(tracker, lambda: table[rows]) == {Kernel(ELEMENTWISE, 2, 0, 2 * 24 + 3 * 8 + 2 * 24): 1}


def test_attention_is_two_products_and_never_moves_the_matrix_between_them(tracker):
    shape = heads, tokens, width = 24, 1536, 128
    q, k, v = (tensor(2, *shape) for _ in range(3))
    with fused_attention():
        ((kernel, times),) = counted(tracker, lambda: F.scaled_dot_product_attention(q, k, v)).items()
    assert (kernel.kind, times) == (ATTENTION, 1)
    assert kernel.flop == 2 * 2 * (2 * heads * tokens * tokens * width)
    assert kernel.bytes == pytest.approx(4 * q.nbytes, rel=0.02)  # and the sum of each row


@pytest.mark.parametrize(("recomputed", "products"), [(False, 3), (True, 4)])
def test_a_backward_pass_counts_and_what_it_computes_again_does_too(tracker, recomputed, products):
    x, w = (tensor(512, 512, requires_grad=True) for _ in range(2))

    def branch(x):
        return (x @ w).exp()

    def work():
        y = checkpoint(branch, x, use_reentrant=False) if recomputed else branch(x)
        y.sum().backward()

    found = counted(tracker, work)
    assert sum(times for kernel, times in found.items() if kernel.flop) == products


@torch.library.custom_op("neighbor_grpo_tests::doubled", mutates_args=())
def doubled(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (x @ w) * 2


doubled.register_fake(lambda x, w: x.new_empty(len(x), w.shape[1]))


@register_flop_formula(torch.ops.neighbor_grpo_tests.doubled)
def _(x, w, *args, **kwargs):
    return 2 * x[0] * x[1] * w[1]


def test_a_kernel_of_ones_own_counts_as_one_and_says_its_arithmetic(tracker):
    x, w = tensor(ROWS, IN), tensor(IN, OUT)
    moved = 2 * (ROWS * IN + IN * OUT + ROWS * OUT)
    assert counted(tracker, lambda: doubled(x, w)) == {Kernel(PRODUCT, 2, 2 * ROWS * IN * OUT, moved): 1}


def test_what_happens_many_times_counts_once_within_and_as_often_around(tracker):
    x, kernels = tensor(8), tracker.kernels
    with tracker, kernels.counting("all"):
        x.exp()
        with kernels.counting("steps", times=3), kernels.counting("parts", times=5):
            x.exp()
    x.exp()
    assert {name: work.total() for name, work in kernels.work.items()} == {"all": 1 + 15, "steps": 5, "parts": 1}


def test_what_comes_from_the_host_is_fetched_and_what_stays_there_is_no_kernel(tracker):
    weight, moved = tensor(16, 8), tensor(5)
    tracker.place([weight, moved], HOST)

    def work():
        weight.view(8, 16).add_(1)
        tensor(16, 8).copy_(weight)
        torch.ones(3).exp()
        tracker.place([moved], DEVICE)
        tracker.place([moved], DEVICE)  # where it is by now

    assert counted(tracker, work) == {Kernel(FETCH, 2, 0, 2 * 128): 1, Kernel(FETCH, 2, 0, 2 * 5): 1}
