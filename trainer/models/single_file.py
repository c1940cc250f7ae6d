"""FLUX transformers in one safetensors file, under Black Forest Labs' own names: what ComfyUI users have."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .source import ModelError

PREFIX = "model.diffusion_model."
MARK = "double_blocks.0.img_attn.qkv.weight"  # every FLUX has it
QKV = ("q", "k", "v")

EMBEDDERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}


def load_single_file(path: Path, dtype: torch.dtype) -> FluxTransformer2DModel:
    """The transformer of a file such as flux1-dev.safetensors; its configuration comes from the tensors' shapes.

    Raises:
        ModelError: not a safetensors file, or not a FLUX transformer.
    """
    try:
        with safe_open(path, "pt") as file:
            names = {name.removeprefix(PREFIX): name for name in file.keys()}  # noqa: SIM118
            if MARK not in names:
                raise ModelError(f"{path} is not a FLUX transformer ({MARK} is missing): choose FLUX.1-dev or -schnell")
            tensors = {short: file.get_tensor(name) for short, name in names.items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}): download it again") from error
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**configuration(tensors))
    renamed = {name: tensor.to(dtype) for name, tensor in diffusers_names(tensors)}
    wrong = transformer.load_state_dict(renamed, strict=False, assign=True)
    odd = [*wrong.missing_keys, *wrong.unexpected_keys]
    if odd:
        raise ModelError(f"{path} is no plain FLUX transformer: {len(odd)} tensors do not fit, the first is {odd[0]}")
    return transformer


def configuration(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Arguments of FluxTransformer2DModel for a file with these tensors."""
    hidden, channels = tensors["img_in.weight"].shape
    head = len(tensors["double_blocks.0.img_attn.norm.query_norm.scale"])
    side = 7 * head // 32 * 2  # FLUX splits a head's 128 dimensions 16, 56, 56 among index, row and column
    return {
        "in_channels": channels,
        "num_layers": _count(tensors, "double_blocks"),
        "num_single_layers": _count(tensors, "single_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": hidden // head,
        "joint_attention_dim": tensors["txt_in.weight"].shape[1],
        "pooled_projection_dim": tensors["vector_in.in_layer.weight"].shape[1],
        "guidance_embeds": "guidance_in.in_layer.weight" in tensors,
        "axes_dims_rope": [head - 2 * side, side, side],
    }


def diffusers_names(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The same weights under diffusers' names: fused projections are split, scale and shift change places."""
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        kind = "weight" if kind == "scale" else kind
        block = re.fullmatch(r"(double|single)_blocks\.(\d+)\.(.+)", module)
        if not block:
            if module == "final_layer.adaLN_modulation.1":
                tensor = torch.cat(tensor.chunk(2)[::-1])  # shift, scale -> scale, shift
            yield f"{EMBEDDERS.get(module, module)}.{kind}", tensor
        elif block[1] == "double":
            prefix = f"transformer_blocks.{block[2]}"
            if block[3].endswith("_attn.qkv"):
                pattern = "to_{}" if block[3].startswith("img") else "add_{}_proj"
                for letter, part in zip(QKV, tensor.chunk(3), strict=True):
                    yield f"{prefix}.attn.{pattern.format(letter)}.{kind}", part
            else:
                yield f"{prefix}.{DOUBLE.get(block[3], block[3])}.{kind}", tensor
        else:
            prefix = f"single_transformer_blocks.{block[2]}"
            if block[3] == "linear1":
                hidden = len(tensors[f"single_blocks.{block[2]}.linear2.bias"])
                *qkv, mlp = tensor.split([hidden] * 3 + [len(tensor) - 3 * hidden])
                for letter, part in zip(QKV, qkv, strict=True):
                    yield f"{prefix}.attn.to_{letter}.{kind}", part
                yield f"{prefix}.proj_mlp.{kind}", mlp
            else:
                yield f"{prefix}.{SINGLE.get(block[3], block[3])}.{kind}", tensor


def _count(tensors: Mapping[str, Tensor], blocks: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(f"{blocks}."))
