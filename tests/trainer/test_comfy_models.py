"""Whole models that ComfyUI's package quantised: the numbers, the memory plans, the velocity, and a training."""

import shutil

import pytest
import torch
from comfy_files import KITCHEN, quantised, write_quantised
from flux_files import clip_tensors, original_transformer, part, write
from loop_runs import run, same, setup_of, weights
from torch import Tensor

from trainer import tiny
from trainer.benchmarks.storage import relative
from trainer.events import IterationDone
from trainer.models.files.source import ModelSource, resolve
from trainer.models.flux1 import parts
from trainer.models.flux1.family import load_placed
from trainer.models.flux1.text import encode_prompts
from trainer.models.flux1.transformer import load_transformer
from trainer.models.storage.frozen import FrozenLinear
from trainer.models.storage.memory import sizes
from trainer.models.storage.placement import Placement
from trainer.planning import models

CPU = Placement("cpu", torch.float32)
# how far the velocity is from that of the float32 weights, as docs/model-files.md says
OFF = {
    "float8_e4m3fn": 0.0128,
    "float8_e5m2": 0.0262,
    "nvfp4": 0.0446,
    "mxfp8": 0.0130,
    "int8": 0.0049,
    "int8 by rows": 0.0030,
    "int8 rotated": 0.0033,
    "convrot_w4a4": 0.0622,
    "asym_w4a8_int8": 0.0351,
}
KEPT = ("float8_e4m3fn", "int8 by rows")  # by the plan fp8


@pytest.fixture(scope="module")
def tensors():
    return original_transformer(tiny.FLUX)


def velocity(model: torch.nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    random = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    with torch.no_grad():
        return model(
            hidden_states=random(2, 16, 64),
            timestep=torch.tensor([0.3, 0.9]),
            encoder_hidden_states=random(2, 8, 128),
            pooled_projections=random(2, 128),
            txt_ids=torch.zeros(8, 3),
            img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
            return_dict=False,
        )[0]


@pytest.mark.parametrize("kind", KITCHEN)
def test_a_whole_model_is_what_the_package_makes_of_its_own_bits(kind, tensors, tmp_path):
    stored, meant = quantised(tensors, KITCHEN[kind])
    found, expected = (
        load_transformer(resolve(str(write(tmp_path / f"{name}.safetensors", t))), dtype=torch.float32)
        for name, t in (("stored", stored), ("meant", meant))
    )
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name)), name
    exact = load_transformer(resolve(str(write(tmp_path / "exact.safetensors", tensors))), dtype=torch.float32)
    assert relative(velocity(found), velocity(exact)) == pytest.approx(OFF[kind], rel=0.1)


def test_a_quantised_file_is_planned_by_the_numbers_that_it_stands_for(tensors, tmp_path):
    plain = models.transformer(str(write(tmp_path / "plain.safetensors", tensors)))
    expected = {name: p.shape for name, p in plain.named_parameters()}
    for kind in ("nvfp4", "convrot_w4a4", "int8 by rows"):
        found = models.transformer(str(write_quantised(tmp_path / "flux.safetensors", tensors, kind)))
        assert {name: p.shape for name, p in found.named_parameters()} == expected
        assert sizes(found, torch.bfloat16) == sizes(plain, torch.bfloat16)


@pytest.mark.parametrize("plan", [("bf16", 0), ("fp8", 0), ("fp8", 1), ("nf4", 0)], ids=str)
@pytest.mark.parametrize("kind", ["float8_e4m3fn", "int8 by rows", "nvfp4", "int8 rotated"])
def test_the_memory_plan_keeps_it_as_it_keeps_any_model(kind, plan, tensors, tmp_path):
    if plan[0] == "nf4":
        pytest.importorskip("bitsandbytes")
    stored, meant = quantised(tensors, KITCHEN[kind])
    found, expected = (
        load_placed(resolve(str(write(tmp_path / f"{name}.safetensors", t))), Placement("cpu", torch.float32, *plan))
        for name, t in (("stored", stored), ("meant", meant))
    )
    if plan[0] == "fp8" and kind in KEPT:
        exact = load_transformer(resolve(str(tmp_path / "meant.safetensors")), dtype=torch.float32)
        layers = {name: m for name, m in found.named_modules() if isinstance(m, FrozenLinear) and m.in_block}
        assert {layer.weight.element_size() for layer in layers.values()} == {1}
        for name, layer in layers.items():
            assert torch.equal(layer.widened(torch.float32, backward=False), exact.get_parameter(f"{name}.weight"))
    else:
        for name, parameter in found.named_parameters():
            assert torch.equal(parameter, expected.get_parameter(name)), name


def test_a_scale_a_row_follows_its_rows_into_the_parts_of_a_fused_layer(tensors, tmp_path):
    path = write_quantised(tmp_path / "flux.safetensors", tensors, "int8 by rows")
    model = load_placed(resolve(str(path)), Placement("cpu", torch.float32, "fp8"))
    scale = quantised(tensors, KITCHEN["int8 by rows"])[0]["double_blocks.1.txt_attn.qkv.weight_scale"]
    assert torch.equal(model.transformer_blocks[1].attn.add_k_proj.scale, scale[192:384])


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "nvfp4", "int8 rotated"])
def test_a_quantised_t5_encodes_as_its_numbers_do(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PUBLISHED", ModelSource("small", str(tiny.FLUX), hub=False))
    clip = write(tmp_path / "clip_l.safetensors", clip_tensors(tiny.FLUX))
    t5 = quantised(part(tiny.FLUX, "text_encoder_2"), KITCHEN[kind])
    assert t5[0].keys() != t5[1].keys()
    encoders = (write(tmp_path / f"{name}.safetensors", t) for name, t in zip(("stored", "meant"), t5, strict=True))
    found, expected = (
        encode_prompts(resolve("embedded", "", (str(clip), str(path))), ["a red spider"], CPU, tokens=32).tensors
        for path in encoders
    )
    assert torch.equal(found["embeddings"], expected["embeddings"])


@pytest.mark.parametrize("memory", ["bf16", "fp8"])
@pytest.mark.parametrize("kind", ["nvfp4", "mxfp8", "int8 by rows", "int8 rotated", "float8_e4m3fn"])
def test_two_iterations_on_a_quantised_model_move_the_lora(kind, memory, tmp_path, config_file):
    folder = shutil.copytree(tiny.FLUX, tmp_path / "flux")
    (path,) = (folder / "transformer").glob("*.safetensors")
    write_quantised(path, part(tiny.FLUX, "transformer"), kind)
    changes = [f"model.path={str(folder)!r}", f"model.memory={memory!r}", "run.iterations=2"]
    setup = setup_of(config_file, overrides=changes)
    before = weights(setup)
    _, _, events = run(setup)
    assert len(events.of(IterationDone)) == 2
    assert not same(before, weights(setup))
