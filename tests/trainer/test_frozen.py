"""Frozen linear layers: what they compute, what they keep, and who may wrap them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.models.storage.eight_bits import quantise
from trainer.models.storage.frozen import FrozenLinear

OUT, IN = 24, 16
CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stored(kind: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight = random(OUT, IN)
    return {
        "rows": lambda: quantise(weight),
        "whole tensor": lambda: (weight.mul(100).to(torch.float8_e4m3fn), torch.tensor(0.01)),
        "whole numbers": lambda: (weight.mul(40).clamp(-127, 127).to(torch.int8), random(OUT, 1, seed=3).abs() / 40),
        "unscaled e5m2": lambda: (weight.to(torch.float8_e5m2), None),
        "as it is": lambda: (weight.bfloat16(), None),
    }[kind]()


def layer_of(weight, scale, dtype=torch.float32) -> FrozenLinear:
    layer = FrozenLinear(IN, OUT)
    layer.bias = nn.Parameter(random(OUT, seed=1).to(dtype), requires_grad=False)
    layer.store_weight(weight, scale, CPU)
    return layer


@pytest.mark.parametrize("kind", ["rows", "whole tensor", "whole numbers", "unscaled e5m2", "as it is"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, IN), (2, 5, IN)])
def test_output_and_gradient_are_those_of_the_widened_weight_bit_for_bit(kind, dtype, shape):
    weight, scale = stored(kind)
    wide = weight.float() if scale is None else weight.float() * scale
    x, upstream = (random(*s, seed=2).to(dtype) for s in (shape, (*shape[:-1], OUT)))
    layer = layer_of(weight, scale, dtype)
    results = []
    for forward in (layer, lambda t: F.linear(t, wide.to(dtype), layer.bias)):
        leaf = x.clone().requires_grad_()
        y = forward(leaf)
        y.backward(upstream)
        results.append((y.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_8_bits_are_of_a_copy_whose_rows_are_divided_by_their_largest_element(dtype):
    weight = random(OUT, IN).to(dtype)
    before = weight.clone()
    eight_bits, scale = quantise(weight)
    assert torch.equal(weight, before)
    largest = torch.tensor([[max(abs(x) for x in row)] for row in weight.tolist()])
    assert torch.equal(scale, largest / 448)
    assert torch.equal(eight_bits.float(), (weight.float() / scale).to(torch.float8_e4m3fn).float())


def test_autograd_holds_no_widened_weight_and_no_input():
    saved = []
    layer = layer_of(*stored("rows"))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(random(3, IN).requires_grad_())
    assert saved == []
    assert layer.weight.dtype == torch.int8


def test_a_row_loses_at_most_a_sixteenth_of_an_element_and_rows_of_zeros_stay_zeros():
    weight = random(OUT, IN) * torch.logspace(-6, 2, OUT)[:, None]
    weight[3] = 0
    eighth_bits, scale = quantise(weight)
    assert eighth_bits.float().abs().amax(1)[weight.abs().amax(1) > 0].eq(448).all()
    error = (eighth_bits.float() * scale - weight).abs()
    smallest_normal = scale * 2**-6
    assert (error <= torch.maximum(weight.abs(), smallest_normal) / 16 * 1.0001).all()
    assert error[3].eq(0).all()


def test_moves_and_casts_of_the_model_leave_the_stored_weight_alone():
    layer = layer_of(*stored("rows"))
    nn.Sequential(layer).to(torch.bfloat16).to("meta")
    assert (layer.weight.device.type, layer.weight.dtype, layer.scale.dtype) == ("cpu", torch.int8, torch.float32)


def test_checkpointing_changes_no_bit():
    layer = layer_of(*stored("rows"))
    gradients = []
    for forward in (layer, lambda t: checkpoint(layer, t, use_reentrant=False)):
        leaf = random(3, IN, seed=4).requires_grad_()
        forward(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_nothing_of_it_is_trained():
    layer = layer_of(*stored("rows"))
    assert not any(p.requires_grad for p in layer.parameters())
    assert not layer(random(3, IN)).requires_grad
