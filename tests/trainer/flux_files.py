"""Random FLUX models in the files that people have."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from original_names import original_layout
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
PREFIX = "model.diffusion_model."
FP8 = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def transformer_of(folder: Path) -> FluxTransformer2DModel:
    # frozen, as loaded ones are: with gradients, matrix products of other shapes may be taken, with other last bits
    return FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer").requires_grad_(False).eval()


def original_transformer(folder: Path) -> Tensors:
    return original_layout(transformer_of(folder))


def write(path: Path, tensors: Tensors) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def write_gguf(path: Path, tensors: Mapping[str, tuple[np.ndarray, Any]]) -> Path:
    """A GGUF file of arrays in the bytes of their kinds, gguf.GGMLQuantizationType."""
    writer = pytest.importorskip("gguf").GGUFWriter(path, arch="flux")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def scaled(tensors: Tensors, marker: str = "scaled_fp8") -> tuple[Tensors, Tensors]:
    """(as ComfyUI stores scaled fp8, the numbers that this stands for)."""
    stored, meant = {marker: torch.empty(0, dtype=torch.float8_e4m3fn)}, {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            stored[name] = meant[name] = tensor
            continue
        scale = tensor.abs().max() / 448
        stored[name] = (tensor / scale).to(torch.float8_e4m3fn)
        stored[f"{name.removesuffix('weight')}scale_weight"] = scale
        stored[f"{name.removesuffix('weight')}scale_input"] = torch.ones(())
        meant[name] = stored[name].float() * scale
    return stored, meant


def part(folder: Path, name: str) -> Tensors:
    """Weights of a part of a diffusers folder."""
    (path,) = (folder / name).glob("*.safetensors")
    return load_file(path)


def clip_tensors(folder: Path) -> Tensors:
    """As in clip_l.safetensors, where all names begin with text_model."""
    return {f"text_model.{n.removeprefix('text_model.')}": t for n, t in part(folder, "text_encoder").items()}


def stored_as(layout: str, folder: Path, to: Path, dtype: torch.dtype) -> Path:
    """The folder's transformer in a file or folder of that layout."""
    original = {name: t.to(dtype) for name, t in original_transformer(folder).items()}
    diffusers = {name: t.to(dtype) for name, t in part(folder, "transformer").items()}
    if layout in ("folder", "shards"):
        to = shutil.copytree(folder, to)
        (weights,) = (to / "transformer").glob("*.safetensors")
        weights.unlink()
        if layout == "folder":
            write(weights, diffusers)
            return to
        names = sorted(diffusers)
        shards = {f"diffusion_pytorch_model-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
        for shard, its in shards.items():
            write(weights.with_name(shard), {name: diffusers[name] for name in its})
        index = {"weight_map": {name: shard for shard, its in shards.items() for name in its}}
        weights.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        return to
    others = {"vae.encoder.conv_in.weight": torch.zeros(3), "text_encoders.clip_l.logit_scale": torch.zeros(())}
    tensors = {
        "original": original,
        "prefixed": {PREFIX + name: t for name, t in original.items()},
        "checkpoint": {PREFIX + name: t for name, t in original.items()} | others,
        "diffusers": diffusers,
    }[layout]
    return write(to.with_suffix(".safetensors"), tensors)


def original_vae(vae: AutoencoderKL) -> Tensors:
    """An autoencoder's weights as ae.safetensors names them, written down module by module."""
    w, out = vae.state_dict(), {}

    def put(name: str, source: str, convolution: bool = False) -> None:
        for kind in ("weight", "bias"):
            tensor = w[f"{source}.{kind}"]
            out[f"{name}.{kind}"] = tensor[..., None, None] if convolution and kind == "weight" else tensor

    def resnet(name: str, source: str) -> None:
        for layer in ("norm1", "conv1", "norm2", "conv2"):
            put(f"{name}.{layer}", f"{source}.{layer}")
        if f"{source}.conv_shortcut.weight" in w:
            put(f"{name}.nin_shortcut", f"{source}.conv_shortcut")

    levels = len(vae.config.block_out_channels)
    for side in ("encoder", "decoder"):
        put(f"{side}.conv_in", f"{side}.conv_in")
        put(f"{side}.norm_out", f"{side}.conv_norm_out")
        put(f"{side}.conv_out", f"{side}.conv_out")
        resnet(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0")
        resnet(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1")
        attention = f"{side}.mid_block.attentions.0"
        put(f"{side}.mid.attn_1.norm", f"{attention}.group_norm")
        for ours, theirs in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            put(f"{side}.mid.attn_1.{ours}", f"{attention}.{theirs}", convolution=True)
    for level in range(levels):
        for n in range(vae.config.layers_per_block):
            resnet(f"encoder.down.{level}.block.{n}", f"encoder.down_blocks.{level}.resnets.{n}")
        for n in range(vae.config.layers_per_block + 1):
            resnet(f"decoder.up.{level}.block.{n}", f"decoder.up_blocks.{levels - 1 - level}.resnets.{n}")
        if level < levels - 1:
            put(f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv")
        if level > 0:
            put(f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{levels - 1 - level}.upsamplers.0.conv")
    return out
