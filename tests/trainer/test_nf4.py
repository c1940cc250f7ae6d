"""Weights in 4 bits, by bitsandbytes: what is stored, what it changes, and a step of training on it."""

import json
import shutil
import sys

import pytest
import torch
from flux_files import PREFIX, original_transformer, part, stored_as, transformer_of, write
from small_step import assert_equal_steps, small_flux, step
from torch import nn

from trainer.models.files.opened import safetensors_files
from trainer.models.files.source import ModelError, resolve
from trainer.models.flux1.family import load_placed
from trainer.models.flux1.text import encode_sets
from trainer.models.flux1.transformer import load_transformer
from trainer.models.storage.memory import MemoryPlan, Storage, blocks
from trainer.models.storage.modulation import Modulator
from trainer.models.storage.placement import Placement
from trainer.planning.predictions import NF4_BYTES

functional = pytest.importorskip("bitsandbytes.functional")
NF4 = MemoryPlan("nf4")


def linears(module):
    return [m for block in blocks(module) for m in block.modules() if isinstance(m, nn.Linear)]


def stored(model):
    Storage(NF4, device="cpu", dtype=torch.float32).store(model)
    return model


def test_a_weight_takes_the_bytes_that_the_plan_counts_with():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Sequential(nn.Linear(1024, 1024))])
    weight = stored(model).blocks[0][0].weight
    scales = weight.quant_state
    held = weight.nbytes + scales.absmax.nbytes + scales.state2.absmax.nbytes
    assert held == NF4_BYTES * 1024 * 1024
    assert scales.quant_type == "nf4"


def test_what_is_not_a_linear_layer_of_a_block_keeps_its_precision():
    model, original = stored(small_flux()), small_flux()
    linear = {f"{name}.weight" for name, m in model.named_modules() if m in linears(model)}
    assert len(linear) == 2 * 14 + 3 * 6
    for name, parameter in model.named_parameters():
        if name in linear:
            assert parameter.dtype == torch.int8
        else:
            assert torch.equal(parameter, original.get_parameter(name)), name


def test_a_rollout_leaves_weights_through_which_a_gradient_comes(monkeypatch):
    """bitsandbytes packs them otherwise for inference, at the first call without gradient on a CPU with avx512_bf16."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Sequential(nn.Linear(512, 512))])
    layer = stored(model).eval().blocks[0][0]
    x = torch.randn(3, 512)
    with torch.no_grad():
        before = layer(x)
    x.requires_grad_()
    after = layer(x)
    after.sum().backward()
    assert torch.equal(after, before)
    assert x.grad.abs().sum() > 0


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
    read = load_placed(resolve(str(path)), Placement("cpu", torch.float32, "nf4"))
    expected = stored(transformer_of(flux_dev))
    exact = transformer_of(flux_dev)
    waiting = [f"{name}.weight" for name, m in read.named_modules() if isinstance(m, Modulator)]
    assert waiting
    for (name, a), (_, b) in zip(read.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.equal(a, exact.get_parameter(name) if name in waiting else b), name


def test_prompts_are_encoded_by_encoders_in_4_bits():
    """T5 casts what it feeds to a layer to the precision of the layer's weight, if that is not int8."""
    (exact,), (found,) = (
        encode_sets(resolve("embedded"), [["a red spider"]], Placement("cpu", torch.float32, memory), tokens=32)
        for memory in ("bf16", "nf4")
    )
    for name in ("embeddings", "pooled"):
        a, b = exact.tensors[name], found.tensors[name]
        assert 0 < (b - a).norm() < 0.25 * a.norm(), name


def in_4_bits(tensors, **options):
    """(as bitsandbytes stores the blocks' weights, the numbers that they stand for)."""
    file, meant = {}, {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or "blocks." not in name:
            file[name] = meant[name] = tensor
            continue
        packed, state = functional.quantize_4bit(tensor, **options)
        file[name] = packed
        file |= {f"{name}.{part}": t for part, t in state.as_dict(packed=True).items()}
        meant[name] = functional.dequantize_4bit(packed, state).float()
    return file, meant


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("compress_statistics", [True, False])
def test_a_file_in_4_bits_is_the_numbers_it_stands_for(flux_dev, tmp_path, prefix, quant_type, compress_statistics):
    tensors = {prefix + name: t.bfloat16() for name, t in original_transformer(flux_dev).items()}
    file, meant = in_4_bits(tensors, quant_type=quant_type, compress_statistics=compress_statistics)
    found, expected = (
        load_transformer(resolve(str(write(tmp_path / f"{name}.safetensors", t))), dtype=torch.float32).state_dict()
        for name, t in (("file", file), ("meant", meant))
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    exact = transformer_of(flux_dev).state_dict()
    name = "single_transformer_blocks.0.proj_mlp.weight"
    assert 0.02 < (found[name] - exact[name]).norm() / exact[name].norm() < 0.25


def test_a_file_in_4_bits_without_bitsandbytes_names_the_remedy(flux_dev, tmp_path, monkeypatch):
    file, _ = in_4_bits(original_transformer(flux_dev), quant_type="nf4")
    path = write(tmp_path / "nf4.safetensors", file)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"nf4.safetensors has weights in 4 bits.*pip install bitsandbytes") as caught:
        load_transformer(resolve(str(path)), dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_a_diffusers_folder_in_4_bits_is_read_too(flux_dev, tmp_path):
    folder = shutil.copytree(flux_dev, tmp_path / "nf4")
    file, meant = in_4_bits(part(flux_dev, "transformer"), quant_type="nf4")
    (weights,) = (folder / "transformer").glob("*.safetensors")
    write(weights, file)
    config = folder / "transformer/config.json"
    added = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | added), "utf-8")
    found = load_transformer(resolve(str(folder)), dtype=torch.float32)
    assert all(torch.equal(parameter, meant[name]) for name, parameter in found.named_parameters())


def test_the_parts_of_a_weight_may_lie_in_several_files(tmp_path):
    file, meant = in_4_bits({"blocks.0.weight": torch.randn(8, 64, dtype=torch.bfloat16)}, quant_type="nf4")
    names = sorted(file)
    shards = [write(tmp_path / f"{i}.safetensors", {n: file[n] for n in names[i::2]}) for i in range(2)]
    (found,) = safetensors_files(shards).values()
    assert torch.equal(found.read().float(), meant["blocks.0.weight"])
    assert torch.equal(found.read([slice(6, 8), slice(0, 2)]), found.read()[[6, 7, 0, 1]])
