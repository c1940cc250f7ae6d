"""A and B are float32 and meet a bfloat16 model in its own precision; elsewhere the model's numbers are widened."""

from copy import deepcopy

import pytest
import torch
from small_step import small_flux

from trainer.models.lora import attach
from trainer.models.lora.attach import activate_lora, attach_lora, detach_lora, set_weights

MODULE = "transformer_blocks.0.attn.to_q"
WIDE = 32  # of the small model


@pytest.fixture(scope="module")
def base():
    return small_flux()


@pytest.fixture(autouse=True, params=["fused", "by peft"])
def way(request, monkeypatch):
    if request.param == "by peft":  # as on layers of bitsandbytes
        monkeypatch.setattr(attach, "_ours", lambda layer: False)


def adapted(transformer, dtype, variant="lora", adapter="a"):
    """A LoRA of random weights, and the layer that it is looked at in."""
    lora = attach_lora(
        transformer, rank=4, alpha=8, targets=MODULE, seed=0, adapter=adapter, variant=variant, dtype=dtype
    )
    g = torch.Generator().manual_seed(3)
    set_weights(lora, {n: p if p.ndim == 1 else 0.3 * torch.randn(p.shape, generator=g) for n, p in lora.items()})
    return lora, transformer.get_submodule(MODULE)


def x_of(dtype):
    return torch.randn(3, 5, WIDE, generator=torch.Generator().manual_seed(4)).to(dtype).requires_grad_()


def exact(layer, lora, x):
    """W x + b + s B A x in float64."""
    a, b = (lora[f"{MODULE}.lora_{half}.weight"].double() for half in "AB")
    w, bias = layer.base_layer.weight.double(), layer.base_layer.bias.double()
    return x.double() @ (w + 2 * b @ a).T + bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_lora_computes_what_it_should_in_every_precision(base, dtype):
    lora, layer = adapted(deepcopy(base).to(dtype), dtype)
    x = x_of(dtype)
    out = layer(x)
    wanted = exact(layer, lora, x)
    assert out.dtype == dtype
    assert (out.double() - wanted).abs().max() <= 3 * torch.finfo(dtype).eps * wanted.abs().max()
    out.double().square().sum().backward()
    (expected,) = torch.autograd.grad(wanted.square().sum(), [lora[f"{MODULE}.lora_A.weight"]])
    found = lora[f"{MODULE}.lora_A.weight"].grad
    assert found.dtype == torch.float32
    assert (found - expected).norm() <= 4 * torch.finfo(dtype).eps * expected.norm()


def kept(layer, x):
    """Precisions of what autograd keeps of a layer's call."""
    dtypes = set()

    def pack(tensor):
        dtypes.add(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return dtypes


def test_a_bfloat16_model_keeps_no_float32_copy_of_its_inputs(base):
    _, layer = adapted(deepcopy(base).bfloat16(), torch.bfloat16)
    assert kept(layer, x_of(torch.bfloat16)) == {torch.bfloat16}
    _, layer = adapted(deepcopy(base).half(), torch.float16)  # whose gradients would vanish
    assert torch.float32 in kept(layer, x_of(torch.float16))


def test_loras_of_both_kinds_share_a_transformer_in_turn(base):
    transformer = deepcopy(base).bfloat16()
    _, layer = adapted(transformer, torch.bfloat16, adapter="lora")
    x = x_of(torch.bfloat16)
    lora = layer(x)
    adapted(transformer, torch.bfloat16, "dora", adapter="dora")
    dora = layer(x)
    assert not torch.equal(dora, lora)
    for adapter, wanted in (("lora", lora), ("dora", dora), ("lora", lora)):
        activate_lora(transformer, adapter)
        assert torch.equal(layer(x), wanted)
    detach_lora(transformer, "dora")
    activate_lora(transformer, "lora")
    assert torch.equal(layer(x), lora)


def test_a_new_dora_changes_nothing_in_bfloat16(base):
    transformer = deepcopy(base).bfloat16()
    x = x_of(torch.bfloat16)
    before = transformer.get_submodule(MODULE)(x)
    attach_lora(transformer, rank=4, alpha=8, targets=MODULE, seed=0, variant="dora", dtype=torch.bfloat16)
    assert torch.equal(transformer.get_submodule(MODULE)(x), before)
