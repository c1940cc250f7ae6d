"""The card made of the CPU computes the CPU's numbers, and refuses what CUDA refuses."""

import copy

import card
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._device import _device_constructors
from torch.utils.checkpoint import checkpoint


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))


def trained(device: str, checkpointing: bool = False) -> list[torch.Tensor]:
    """The weights after three steps of AdamW with clipped gradients."""
    model = small_model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).to(device)
    for _ in range(3):
        optimizer.zero_grad()
        y = checkpoint(model, x, use_reentrant=False) if checkpointing else model(x)
        y.square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return [p.detach().cpu() for p in model.parameters()]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_gives_the_cpus_weights(checkpointing):
    before, after = list(small_model().parameters()), trained("cpu")
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(before, after, strict=True))
    for ours, theirs in zip(trained("card", checkpointing), after, strict=True):
        assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_its_gradient_are_the_cpus_bit_for_bit(dtype, masked):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 7, 16, generator=generator).to(dtype) for _ in range(3))
    results = []
    for device in ("cpu", "card"):
        leaves = [t.to(device, copy=True).requires_grad_() for t in (q, k, v)]
        mask = torch.ones(7, 7, dtype=torch.bool, device=device).tril() if masked else None
        out = F.scaled_dot_product_attention(*leaves, attn_mask=mask)
        out.square().sum().backward()
        results.append([out.detach().cpu(), *(t.grad.cpu() for t in leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_attention_in_inference_mode_is_the_same():
    q = torch.randn(1, 2, 7, 16)
    with torch.inference_mode():
        assert torch.equal(
            F.scaled_dot_product_attention(*[q.to("card")] * 3).cpu(), F.scaled_dot_product_attention(q, q, q)
        )


def test_attention_never_holds_the_matrix_of_all_tokens():
    q = torch.randn(1, 1, 512, 8, device="card", requires_grad=True)
    card.module.reset_peak_memory_stats()
    F.scaled_dot_product_attention(q, q, q).sum().backward()
    assert card.memory.peak < 512 * 512 * 4 / 2


MIXED = {
    "sum": lambda a, b: a + b,
    "product": lambda a, b: a @ b.T,
    "layer": F.linear,
    "in place": lambda a, b: a.add_(b),
    "concatenation": lambda a, b: torch.cat([a, b]),
    "numbers in a stack": lambda a, b: torch.stack([a.sum(), b.sum()]),
    "choice": lambda a, b: torch.where(a > 0, a, b),
    "the host's by the card's index": lambda a, b: b[a[0].long()],
    "number of the card": lambda a, b: b + a.sum(),
    "gathered": lambda a, b: a.gather(0, b.long()),
}


@pytest.mark.parametrize("operation", MIXED.values(), ids=MIXED)
def test_tensors_of_two_devices_are_refused(operation):
    on_card, on_host = torch.zeros(2, 2, device="card"), torch.zeros(2, 2)
    with pytest.raises(RuntimeError, match=r"same device.*card:0 and cpu"):
        operation(on_card, on_host)


ALLOWED = {
    "a number": lambda a: a * torch.tensor(2.0),
    "a chosen number": lambda a: torch.where(a > 0, a, torch.tensor(2.0)),
    "an index of the host": lambda a: a[torch.tensor([1, 0])],
    "a list": lambda a: a[[1, 0]],
    "filled": lambda a: a.masked_fill(a > 0, torch.tensor(3.0)),
    "copied": lambda a: a.clone().copy_(torch.ones(2, 2)),
    "assigned": lambda a: torch.zeros_like(a).index_put_((torch.tensor([0]),), torch.tensor(1.0)),
}


@pytest.mark.parametrize("operation", ALLOWED.values(), ids=ALLOWED)
def test_what_cuda_takes_from_the_host_gives_the_cpus_numbers(operation):
    x = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    assert torch.equal(operation(x.to("card")).cpu(), operation(x))


def test_the_card_is_a_device_to_torch():
    x = torch.ones(2, device="card")
    assert x.device == card.CARD == torch.device("card:0")
    assert torch.get_device_module("card") is card.module
    assert not x.is_cpu
    assert not x.is_cuda
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_views_share_their_numbers(mode):
    x = torch.zeros(4, device="card")
    with mode():
        x[1:3].view(2, 1).add_(1)
        x.detach()[0] = 5
    assert x.tolist() == [5, 1, 1, 0]


def test_data_that_is_exchanged_is_computed_with():
    p = nn.Parameter(torch.ones(2, device="card", dtype=torch.bfloat16))
    p.data = p.data.float() * 3
    assert p.dtype == torch.float32
    (p * p).sum().backward()
    assert p.grad.tolist() == [6, 6]


def test_a_deep_copy_has_memory_of_its_own():
    layer = nn.Linear(2, 2, device="card")
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.zero_()
    assert isinstance(other.weight, nn.Parameter)
    assert other.weight.device == card.CARD
    assert layer.weight.abs().sum() > 0


def test_fresh_memory_is_not_a_number_until_it_is_written():
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn):
        x = torch.empty(3, device="card", dtype=dtype)
        assert x.float().isnan().all()
        assert torch.empty_like(x).float().isnan().all()
    assert torch.zeros(3, device="card").tolist() == [0, 0, 0]


def test_an_error_in_a_backward_pass_comes_out_of_it():
    x = torch.ones(3, device="card", requires_grad=True)
    y = x.exp().square().sum()
    card.memory.fails = {card.memory.taken + 2}
    with pytest.raises(torch.OutOfMemoryError, match="injected"):
        y.backward()
    assert (x * 2).tolist() == [2, 2, 2]


def test_a_device_for_a_block_of_code_is_kept_once_memory_was_pinned():
    """A whole FLUX on meta is 48 GB on the CPU if torch.empty is not sent there."""
    _device_constructors.cache_clear()  # as in a process that has used no device this way
    with card.pinning(), torch.device("meta"):
        assert torch.empty(2).is_meta
    with torch.device("meta"):
        assert torch.empty(2).is_meta
