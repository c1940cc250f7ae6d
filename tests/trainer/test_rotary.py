"""Queries and keys, normed and rotated by one kernel: diffusers' numbers, its bits where the kernel does not work."""

import importlib.util
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from small_step import small_flux
from torch import nn

from trainer.models.flux1 import attention
from trainer.models.flux1.attention import Attention
from trainer.models.flux1.checkpointing import checkpoint_blocks
from trainer.models.flux1.rotary import has_kernel, rotated
from trainer.models.storage import trial
from trainer.planning.kernels import ELEMENTWISE, Kernel
from trainer.planning.stand_ins import PlannedAttention
from trainer.planning.tracker import MemoryTracker
from trainer.settings.config_file import load_config
from trainer.training.prepare import prepare

TEXT, PICTURE, EPS = 3, 5, 1e-6
SIZES = [(24, 128), (2, 16), (3, 12)]  # heads and their width


@pytest.fixture
def kernels(monkeypatch):
    """Triton's kernels by its interpreter, in the place of those for a GPU."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read where kernels are made
    monkeypatch.setattr(triton.language, "sum", triton.jit(triton.language.sum.fn))  # Triton's own ones too
    name = "trainer.models.flux1.rotary_kernels"
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def given(heads, width, *, device="cpu", dtype=torch.float32):
    """Text and picture, a weight for each, and the cosines and sines of every token and pair of numbers."""
    g = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, tokens, heads, width, generator=g) for tokens in (TEXT, PICTURE)]
    weights = [0.5 + torch.rand(width, generator=g) for _ in parts]
    angles = 6 * torch.rand(TEXT + PICTURE, width // 2, generator=g)
    cos, sin = (f(angles).repeat_interleave(2, 1).to(device) for f in (torch.cos, torch.sin))
    parts, weights = ([t.to(device, dtype) for t in tensors] for tensors in (parts, weights))
    return [part.requires_grad_() for part in parts], weights, cos, sin, EPS


def by_diffusers(parts, weights, cos, sin, eps):
    normed = [F.rms_norm(x, x.shape[-1:], weight, eps) for x, weight in zip(parts, weights, strict=True)]
    return apply_rotary_emb(torch.cat(normed, 1), (cos, sin), sequence_dim=1)


def by_definition(parts, weights, cos, sin, eps):
    """As complex numbers, in float64."""
    wide = [x.double() / x.double().square().mean(-1, keepdim=True).add(eps).sqrt() for x in parts]
    joined = torch.cat([x * weight.double() for x, weight in zip(wide, weights, strict=True)], 1)
    turn = torch.complex(cos.double(), sin.double())[None, :, None, ::2]
    turned = torch.view_as_complex(joined.unflatten(-1, (-1, 2))) * turn
    return torch.view_as_real(turned).flatten(-2)


@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_and_its_gradient_are_diffusers(kernels, size):
    arguments = given(*size)
    found, wanted = rotated(*arguments), by_diffusers(*arguments)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = (torch.autograd.grad(y, arguments[0], upstream) for y in (found, wanted))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_a_gradient_that_lies_in_memory_as_attention_has_its_heads(kernels):
    arguments = given(2, 16)
    upstream = torch.randn(2, 2, TEXT + PICTURE, 16, generator=torch.Generator().manual_seed(1)).transpose(1, 2)
    found, wanted = (torch.autograd.grad(f(*arguments), arguments[0], upstream) for f in (rotated, by_diffusers))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounded_once_it_is_no_further_off_than_diffusers(kernels, dtype):
    """The kernel gets the same numbers in float32, as Triton's interpreter does not round to bfloat16."""
    parts, weights, *others = given(24, 128, dtype=dtype)
    exact = by_definition(parts, weights, *others)
    found = rotated([x.float() for x in parts], [w.float() for w in weights], *others).to(dtype)
    mine, theirs = ((y.double() - exact).norm() for y in (found, by_diffusers(parts, weights, *others)))
    assert 0 < mine < 0.8 * theirs
    assert rotated(parts, weights, *others).dtype == dtype


def run(processor, *, checkpointing=False):
    """Velocity and gradients of the inputs of a small FLUX."""
    transformer = small_flux().requires_grad_(False)
    transformer.set_attn_processor(processor)
    g = torch.Generator().manual_seed(2)
    for module in transformer.modules():
        if isinstance(module, nn.RMSNorm):
            module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=g))
    if checkpointing:
        checkpoint_blocks(transformer)
    text, picture = torch.randn(1, TEXT, 32, generator=g), torch.randn(1, 4, 64, generator=g)
    text, picture = text.requires_grad_(), picture.requires_grad_()
    v = transformer(
        hidden_states=picture,
        encoder_hidden_states=text,
        pooled_projections=torch.randn(1, 32, generator=g),
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([3.5]),
        img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(2.0), torch.arange(2.0)),
        txt_ids=torch.zeros(TEXT, 3),
    ).sample
    return v.detach(), *torch.autograd.grad(v.square().sum(), [text, picture])


@pytest.fixture
def called(monkeypatch):
    """How many queries and keys the kernel was asked for."""
    calls, original = [], attention.rotated
    monkeypatch.setattr(attention, "rotated", lambda *args: calls.append(args) or original(*args))
    return calls


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_whose_attention_uses_the_kernel_is_the_same(kernels, monkeypatch, called, checkpointing):
    monkeypatch.setattr(attention, "has_kernel", lambda device: True)
    found, wanted = run(Attention(), checkpointing=checkpointing), run(FluxAttnProcessor())
    assert len(called) == 2 * 5 * (1 + checkpointing)  # of each block
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_without_the_kernel_every_bit_is_diffusers(called):
    found, wanted = run(Attention()), run(FluxAttnProcessor())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))
    assert not called


def test_a_trained_norm_has_its_gradient(monkeypatch, called):
    monkeypatch.setattr(attention, "has_kernel", lambda device: True)
    block = small_flux().single_transformer_blocks[0].requires_grad_(False)
    block.attn.set_processor(Attention())
    weight = block.attn.norm_k.weight.requires_grad_()
    rotary = torch.ones(7, 16), torch.zeros(7, 16)
    g = torch.Generator().manual_seed(3)
    block.attn(torch.randn(1, 7, 32, generator=g), image_rotary_emb=rotary).square().sum().backward()
    assert weight.grad.abs().sum() > 0
    assert not called


def test_a_compiled_block_is_one_graph_and_fuses_for_itself(monkeypatch, called):
    monkeypatch.setattr(attention, "has_kernel", lambda device: True)
    transformer = small_flux().requires_grad_(False)
    transformer.set_attn_processor(Attention())
    compiled = partial(torch.compile, backend="aot_eager", fullgraph=True)
    x, text, time = torch.randn(1, 4, 32), torch.randn(1, 3, 32), torch.randn(1, 32)
    rotary = torch.ones(7, 16), torch.zeros(7, 16)
    for block in (transformer.transformer_blocks[0], transformer.single_transformer_blocks[0]):
        compiled(block)(x, text, time, rotary)
    assert not called


def test_a_loaded_model_has_this_attention(flux_dev, config_file):
    setup = prepare(load_config(config_file()))
    assert {type(p) for p in setup.policy.network.attn_processors.values()} == {Attention}


def test_a_triton_that_does_not_work_is_told_once(monkeypatch, caplog):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(trial, "kernels_by_triton", lambda device: True)  # not on the CPU
    has_kernel.cache_clear()
    assert not any(has_kernel(torch.device("cpu")) for _ in range(2))
    has_kernel.cache_clear()
    (record,) = caplog.records
    assert "Triton does not work here" in record.message
    assert "normed and rotated by torch" in record.message


def test_the_trial_is_passed_by_kernels_that_work(kernels, monkeypatch):
    monkeypatch.setattr(trial, "kernels_by_triton", lambda device: True)
    has_kernel.cache_clear()
    assert has_kernel(torch.device("cpu"))
    has_kernel.cache_clear()


def test_the_planner_counts_one_kernel_each_way_which_keeps_its_input_alone():
    parts, weights, *others = given(24, 128, device="meta", dtype=torch.bfloat16)
    tracker, kept = MemoryTracker(), []
    x = sum(part.nbytes for part in parts)
    around = sum(t.nbytes for t in (*weights, *others[:2]))
    with tracker, torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        with tracker.kernels.counting("forward"):
            y = rotated(parts, weights, *others)
        upstream = torch.empty_like(y)
        with tracker.kernels.counting("backward"):
            torch.autograd.grad(y, parts, upstream)
    assert tracker.kernels.work["forward"] == {Kernel(ELEMENTWISE, 2, 0, 2 * x + around): 1}
    assert tracker.kernels.work["backward"] == {Kernel(ELEMENTWISE, 2, 0, 3 * x + around): 1}
    assert sum(t.nbytes for t in kept) == x + around


@pytest.mark.parametrize(
    ("device", "there", "counted"), [("cpu", False, True), ("cuda", False, False), ("cuda:1", True, True)]
)
def test_a_plan_is_for_the_runs_device_or_for_one_that_has_triton(monkeypatch, device, there, counted):
    monkeypatch.setattr("trainer.device.find_spec", lambda name: there or None)
    assert PlannedAttention(device).has_kernel(torch.device("meta")) is counted
