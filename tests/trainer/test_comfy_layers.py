"""Layers of ComfyUI's formats: which are kept as they are, and what is said of those that cannot be read."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from comfy_files import Layer, layer_file, text
from flux_files import PREFIX, Tensors, original_transformer, part, stored_as, write
from safetensors.torch import save_file
from torch import Tensor

from trainer.models.files.comfy_layers import QuantisedTensor
from trainer.models.files.opened import safetensors_files
from trainer.models.files.safe_tensor import SafeTensor
from trainer.models.files.source import ModelError, resolve
from trainer.models.files.weights import pieces_of
from trainer.models.flux1.transformer import load_transformer

OUT, IN = 32, 64
DTYPE = torch.float32
NAN, INFINITE = torch.tensor(math.nan), torch.tensor(math.inf)


def eight_bits(**changes: Tensor) -> Tensors:
    return {"weight": torch.ones(OUT, IN, dtype=torch.int8), "weight_scale": torch.ones(()), **changes}


def nvfp4(**changes: Tensor) -> Tensors:
    blocks = torch.ones(128, 4).to(torch.float8_e4m3fn)
    packed = torch.full((OUT, IN // 2), 0x22, dtype=torch.uint8)
    return {"weight": packed, "weight_scale": blocks, "weight_scale_2": torch.ones(()), **changes}


def less(tensors: Tensors, name: str) -> Tensors:
    return {n: t for n, t in tensors.items() if n != name}


def written(path: Path, told: object, stored: Tensors) -> Path:
    return layer_file(path / "layer.safetensors", Layer(told, stored, torch.empty(0)))


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize(
    ("told", "stored", "reason"),
    [
        ({"format": "nvfp4"}, less(nvfp4(), "weight_scale"), "its weight_scale is missing"),
        ({"format": "nvfp4"}, less(nvfp4(), "weight_scale_2"), "its weight_scale_2 is missing"),
        ({"format": "int8_tensorwise"}, less(eight_bits(), "weight_scale"), "its weight_scale is missing"),
        ({"format": "mxfp8"}, eight_bits(), "its weight is I8, not F8_E4M3"),
        ({"format": "nvfp4"}, nvfp4(weight=torch.ones(OUT, IN)), "its weight is F32, not U8"),
        (
            {"format": "nvfp4"},
            nvfp4(weight_scale=torch.ones(OUT, 4).to(torch.float8_e4m3fn)),
            r"its weight_scale has \[32, 4\] numbers F8_E4M3, not 512 F8_E4M3 or U8",
        ),
        ({"format": "nvfp4"}, nvfp4(weight_scale=torch.ones(128, 4)), "numbers F32, not 512"),
        ({"format": "int8_tensorwise"}, eight_bits(weight_scale=torch.ones(1, dtype=torch.uint8)), "U8, not 1 F32 or"),
        ({"format": "nvfp4"}, nvfp4(weight_scale_2=torch.ones(2)), "its weight_scale_2 has"),
        ({"format": "nvfp4"}, nvfp4(pre_quant_scale=torch.ones(3)), "its pre_quant_scale has .*not 64"),
        ({"format": "nvfp4"}, nvfp4(weight=torch.zeros(OUT, 4, dtype=torch.uint8)), "16 numbers of a row share"),
        ({"format": "nvfp4"}, nvfp4(weight=torch.zeros(0, 8, dtype=torch.uint8)), r"is \[0, 8\], which is no matrix"),
        ({"format": "nvfp4"}, nvfp4(weight=torch.zeros(OUT, dtype=torch.uint8)), r"is \[32\], which is no matrix"),
        ({"format": "int8_blockwise"}, eight_bits(weight_scale=torch.ones(3, 2)), r"its scales are \[3, 2\]"),
        ({"format": "int8_blockwise"}, eight_bits(weight_scale=torch.ones(2, 2, 2)), r"its scales are \[2, 2, 2\]"),
        ({"format": "int8_blockwise"}, eight_bits(weight_scale=torch.ones(0, 2)), r"its scales are \[0, 2\]"),
        (
            {"format": "int8_tensorwise", "convrot": True},
            eight_bits(),
            "256 columns are rotated together, and it has 64",
        ),
        ({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 8}, eight_bits(), "a power of 4"),
        ({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": "x"}, eight_bits(), "its options are"),
        (
            {"format": "asym_w4a8_int8", "group_size": 7, "convrot_groupsize": 16},
            eight_bits(),
            "of this format, 4 bits",
        ),
        ({"format": "asym_w4a8_int8", "group_size": 0, "convrot_groupsize": 16}, eight_bits(), "its options are"),
        ({"form": "nvfp4"}, nvfp4(), "names no format"),
        ({"format": ["nvfp4"]}, nvfp4(), "names no format"),
        ("nvfp4", nvfp4(), "'nvfp4' names no format"),
    ],
)
@pytest.mark.parametrize("in_header", [False, True])
def test_parts_that_do_not_fit_are_told_by_the_header_alone(told, stored, reason, in_header, tmp_path):
    path = layer_file(tmp_path / "layer.safetensors", Layer(told, stored, torch.empty(0)), in_header=in_header)
    message = refusal(lambda: safetensors_files([path]))
    assert re.match(f"{path}: 'a.b.weight' cannot be read as .*{reason}.*: download it again, or take the ", message)


@pytest.mark.parametrize("header", ["{", "[]", "null", '{"layers": 3}', '{"layers": null}', "[" * 10**5])
def test_a_headers_text_that_is_none_is_told(header, tmp_path):
    save_file(nvfp4(), tmp_path / "layer.safetensors", {"_quantization_metadata": header})
    message = refusal(lambda: safetensors_files([tmp_path / "layer.safetensors"]))
    assert re.search(r"layer.safetensors: its _quantization_metadata cannot be read \(.*\): download it", message)


@pytest.mark.parametrize(
    "beside",
    [
        text({})[:1],
        torch.tensor([255, 254], dtype=torch.uint8),
        torch.tensor(list(b"[" * 60_000), dtype=torch.uint8),
        torch.tensor(list(b"{}" + b" " * 2**16), dtype=torch.uint8),
        torch.ones(3),
    ],
)
def test_a_layers_text_that_is_none_is_told(beside, tmp_path):
    path = write(tmp_path / "layer.safetensors", {"a.weight": torch.ones(2, 2), "a.comfy_quant": beside})
    message = refusal(lambda: safetensors_files([path]))
    assert re.search(r"layer.safetensors: 'a.comfy_quant' cannot be read \(.*\): download it again", message)


@pytest.mark.parametrize(
    ("told", "stored", "reason"),
    [
        ({"format": "nvfp4"}, nvfp4(weight_scale_2=NAN), "a number or a scale is infinite or not a number"),
        ({"format": "nvfp4"}, nvfp4(weight_scale_2=INFINITE), "a number or a scale is infinite or not a number"),
        ({"format": "nvfp4"}, nvfp4(weight_scale_2=torch.zeros(())), "its scales are all 0"),
        ({"format": "int8_blockwise"}, eight_bits(weight_scale=torch.zeros(2, 2)), "its scales are all 0"),
        ({"format": "int8_tensorwise"}, eight_bits(pre_quant_scale=torch.full((IN,), math.nan)), "is infinite or not"),
        ({"format": "int8_tensorwise"}, eight_bits(weight_scale=NAN), "the scale of .* is 0, infinite or not a number"),
        ({"format": "int8_tensorwise"}, eight_bits(weight_scale=INFINITE), "the scale of .* is 0, infinite or not"),
        ({"format": "int8_tensorwise"}, eight_bits(weight_scale=torch.zeros(OUT, 1)), "the scale of .* is 0, infinite"),
    ],
)
def test_scales_that_are_none_are_told_when_they_are_read(told, stored, reason, tmp_path):
    path = written(tmp_path, told, stored)
    (piece,) = pieces_of(safetensors_files([path])).values()
    message = refusal(lambda: (piece.read(), piece.read_scale()))
    assert re.match(f"{path}: .*{reason}.*: download it again", message)
    assert "'a.b.weight'" in message


def test_a_row_of_zeros_may_have_a_scale_of_0(tmp_path):
    path = written(tmp_path, {"format": "int8_tensorwise"}, eight_bits(weight_scale=torch.arange(float(OUT))[:, None]))
    (piece,) = pieces_of(safetensors_files([path])).values()
    assert piece.read_scale().flatten().tolist() == list(range(OUT))


@pytest.mark.parametrize(
    "scale", [torch.ones(()), torch.ones(1), torch.ones(1, 1), torch.ones(OUT), torch.ones(OUT, 1)]
)
@pytest.mark.parametrize("told", [True, False])
def test_8_bits_are_kept_if_each_row_has_one_scale_at_most(told, scale, tmp_path):
    tensors = {f"a.b.{name}": t for name, t in eight_bits(weight_scale=scale).items()}
    if told:
        tensors["a.b.comfy_quant"] = text({"format": "int8_tensorwise"})
    stored = safetensors_files([write(tmp_path / "layer.safetensors", tensors)])
    (piece,) = pieces_of(stored).values()
    assert isinstance(piece.stored, SafeTensor)
    assert (piece.read().dtype, piece.read_scale().numel()) == (torch.int8, scale.numel())


@pytest.mark.parametrize("end", ["weight_scale", "scale_weight"])
def test_tiles_are_read_without_a_text_and_under_the_older_name_too(end, tmp_path):
    scale = torch.tensor([[1.0, 2.0]])
    tensors = {"a.weight": torch.ones(OUT, IN, dtype=torch.int8), f"a.{end}": scale}
    (piece,) = pieces_of(safetensors_files([write(tmp_path / "layer.safetensors", tensors)])).values()
    assert isinstance(piece.stored, QuantisedTensor)
    assert torch.equal(piece.read(), torch.tensor([1.0, 2.0]).repeat_interleave(IN // 2).expand(OUT, IN))


def test_numbers_of_8_bits_without_a_scale_are_no_weight(tmp_path, flux_dev):
    tensors = original_transformer(flux_dev) | {"txt_in.weight": torch.ones(32, 32, dtype=torch.int8)}
    message = refusal(lambda: load_transformer(resolve(str(write(tmp_path / "f.safetensors", tensors))), dtype=DTYPE))
    assert "it keeps 'txt_in.weight' as I8, which is not read: take one in bf16, fp16, fp8, int8," in message


def test_a_weight_of_no_layer_is_read(tmp_path):
    stored = safetensors_files([write(tmp_path / "one.safetensors", {"weight": torch.ones(2, 2)})])
    assert torch.equal(stored["weight"].read(), torch.ones(2, 2))


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("in_header", [True, False])
def test_a_format_that_is_not_read_is_named_with_its_layer(prefix, in_header, flux_dev, tmp_path):
    name, told = "double_blocks.0.img_attn.proj", {"format": "svdquant_w4a4", "group_size": 64}
    tensors = {prefix + n: t for n, t in original_transformer(flux_dev).items()}
    tensors[f"{prefix}{name}.weight"] = torch.ones(32, 16, dtype=torch.int8)
    tensors[f"{prefix}{name}.weight_proj_up"] = torch.ones(32, 2)
    if not in_header:
        tensors[f"{prefix}{name}.comfy_quant"] = text(told)
    header = {"_quantization_metadata": json.dumps({"layers": {name: told}})} if in_header else None
    save_file(tensors, tmp_path / "flux.safetensors", header)
    message = refusal(lambda: load_transformer(resolve(str(tmp_path / "flux.safetensors")), dtype=DTYPE))
    keeps = f"is no plain FLUX transformer: it keeps '{prefix}{name}.weight' as svdquant_w4a4 (comfy_quant: {{"
    assert keeps in message
    assert "which is not read: take one in bf16, fp16, fp8, int8, nvfp4, mxfp8, " in message


@pytest.mark.parametrize(
    ("ends", "by"),
    [
        (("qweight", "wscales", "smooth_factor"), "Nunchaku"),
        (("weight._data", "weight._scale"), "optimum-quanto"),
        (("_weight_qdata", "_weight_scale"), "torchao"),
        (("weight_packed", "weight_scale"), "compressed-tensors"),
        (("qweight", "qzeros", "scales"), "GPTQ or AWQ"),
    ],
)
def test_who_quantised_a_file_that_is_not_read_is_named(ends, by, tmp_path):
    layers = ("single_transformer_blocks.0.mlp_fc1", "single_transformer_blocks.0.proj_mlp.weight")
    layer = layers[0] if by in ("Nunchaku", "GPTQ or AWQ") else layers[1].removesuffix(".weight")
    tensors = {f"{layer}.{end}": torch.ones(2, 2) for end in ends} | {layers[0] + ".bias": torch.ones(2)}
    path = write(tmp_path / "flux.safetensors", tensors)
    message = refusal(lambda: load_transformer(resolve(str(path)), dtype=DTYPE))
    assert message == (
        f"{path} is a FLUX.1 transformer quantised by {by}, which is not read: take FLUX.1-dev or -schnell in bf16, "
        "fp16, fp8, int8, nvfp4, mxfp8, bitsandbytes' 4 bits or most kinds of GGUF"
    )


def test_a_folder_in_8_bits_by_bitsandbytes_is_named(flux_dev, tmp_path):
    folder = stored_as("folder", flux_dev, tmp_path / "model", torch.float32)
    (path,) = (folder / "transformer").glob("*.safetensors")
    name = "transformer_blocks.0.attn.to_q"
    eight = {f"{name}.weight": torch.ones(32, 32, dtype=torch.int8), f"{name}.SCB": torch.ones(32)}
    write(path, part(flux_dev, "transformer") | eight)
    message = refusal(lambda: load_transformer(resolve(str(folder)), dtype=DTYPE))
    assert "its transformer is quantised by bitsandbytes in 8 bits, which is not read: take one in bf16" in message


def test_half_a_flux_is_not_said_to_be_another_model(flux_dev, tmp_path):
    tensors = original_transformer(flux_dev)
    del tensors["txt_in.weight"]
    message = refusal(lambda: load_transformer(resolve(str(write(tmp_path / "f.safetensors", tensors))), dtype=DTYPE))
    assert "f.safetensors is no whole FLUX transformer (context_embedder.weight is missing): download it" in message
