"""Weights in 4 bits, by bitsandbytes: what is stored, what it changes, and a step of training on it."""

import pytest
import torch
from flux_files import stored_as, transformer_of
from small_step import small_flux, step
from test_memory_steps import assert_equal_steps
from torch import nn

from trainer.models.flux import load_placed
from trainer.models.memory import MemoryPlan, Storage, blocks
from trainer.models.source import resolve
from trainer.models.text import encode_sets
from trainer.planning.report import NF4_BYTES

pytest.importorskip("bitsandbytes")
NF4 = MemoryPlan("nf4")


def linears(module):
    return [m for block in blocks(module) for m in block.modules() if isinstance(m, nn.Linear)]


def stored(model, dtype=torch.float32):
    Storage(NF4, device="cpu", dtype=dtype).store(model)
    return model


def test_a_weight_takes_the_bytes_that_the_plan_counts_with():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Sequential(nn.Linear(1024, 1024))])
    weight = stored(model).blocks[0][0].weight
    scales = weight.quant_state
    held = weight.nbytes + scales.absmax.nbytes + scales.state2.absmax.nbytes
    assert held == NF4_BYTES * 1024 * 1024


def test_what_is_not_a_linear_layer_of_a_block_keeps_its_precision():
    model, original = stored(small_flux()), small_flux()
    linear = {f"{name}.weight" for name, m in model.named_modules() if m in linears(model)}
    assert len(linear) == 2 * 14 + 3 * 6
    for name, parameter in model.named_parameters():
        if name in linear:
            assert parameter.dtype == torch.int8
        else:
            assert torch.equal(parameter, original.get_parameter(name)), name


def test_a_step_on_4_bits_is_near_the_exact_one_and_trains_the_lora_in_float32():
    found, exact = step(NF4), step(None)
    error = (found.trajectories.v - exact.trajectories.v).norm() / exact.trajectories.v.norm()
    assert 1e-3 < error < 0.05  # 0.016
    assert {w.dtype for w in found.weights.values()} == {torch.float32}
    for name, gradient in exact.gradients.items():
        alike = torch.cosine_similarity(gradient.flatten(), found.gradients[name].flatten(), 0)
        assert alike > 0.8, name


def test_checkpointing_changes_no_bit_of_a_step_on_4_bits():
    assert_equal_steps(step(NF4, checkpointing=True), step(NF4))


@pytest.mark.parametrize("layout", ["original", "folder"])
def test_a_file_is_read_into_the_same_4_bits(layout, flux_dev, tmp_path):
    path = stored_as(layout, flux_dev, tmp_path / "model", torch.float32)
    options = {"checkpointing": False, "device": "cpu", "dtype": torch.float32}
    read = load_placed(resolve(str(path)), "nf4", 0.0, **options)
    expected = stored(transformer_of(flux_dev))
    for (name, a), (_, b) in zip(read.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_prompts_are_encoded_by_encoders_in_4_bits():
    """T5 casts what it feeds to a layer to the precision of the layer's weight, if that is not int8."""
    source, options = resolve("embedded"), {"tokens": 32, "device": "cpu", "dtype": torch.float32}
    (exact,), (found,) = (encode_sets(source, [["a red spider"]], memory=m, **options) for m in ("bf16", "nf4"))
    for name in ("embeddings", "pooled"):
        a, b = getattr(exact, name), getattr(found, name)
        assert 0 < (b - a).norm() < 0.25 * a.norm(), name
