"""Which of FLUX.1's layers get a LoRA, and what files call them: by diffusers' modules or by fused layers.

A fused layer stacks the rows of several modules: queries, keys and values in `img_attn.qkv`, and in the `linear1` of a
single block the first half of its feed-forward too. These are the names ComfyUI's `model_lora_keys_unet` knows.
"""

import re
from collections.abc import Collection

import torch
from torch import Tensor

from .single_file import DOUBLE, EMBEDDERS, SINGLE

QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
MLP = "proj_mlp"
STACKS = {
    "double": {"img_attn.qkv": QKV, "txt_attn.qkv": ADDED_QKV, **{name: (part,) for name, part in DOUBLE.items()}},
    "single": {"linear1": (*QKV, MLP), **{name: (part,) for name, part in SINGLE.items()}},
}
# XLabs' names, which ComfyUI knows from USO: 1 is the picture's stream, 2 the text's
XLABS = {
    "double": {
        "qkv_lora1": QKV,
        "proj_lora1": ("attn.to_out.0",),
        "qkv_lora2": ADDED_QKV,
        "proj_lora2": ("attn.to_add_out",),
    },
    "single": {"qkv_lora": QKV, "proj_lora": ("proj_out",)},
}
# presets of lora.targets
_ATTENTION = (
    r"(single_)?transformer_blocks\.\d+\.attn\."
    r"(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
)
# full paths: a bare "proj_out" would also match the model's last layer
_FEED_FORWARD = (
    r"transformer_blocks\.\d+\.(ff|ff_context)\.net\.(0\.proj|2)"
    r"|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)"
)
TARGETS = {"attention": _ATTENTION, "all-linear": f"{_ATTENTION}|{_FEED_FORWARD}"}

TURNED = "norm_out.linear"  # scale before shift in diffusers, after it in Black Forest Labs' code
MLP_RATIO = 4  # of every FLUX


def fused_layers(modules: Collection[str]) -> dict[str, list[str]]:
    """The layers of Black Forest Labs' code that hold any of `modules`, each with all the modules it stacks."""
    found = {
        f"{kind}_blocks.{index}.{name}": [f"{block}.{part}" for part in parts]
        for kind, index, block in _blocks(modules)
        for name, parts in STACKS[kind].items()
    }
    found |= {name: [module] for name, module in EMBEDDERS.items()}
    return {name: parts for name, parts in found.items() if any(part in modules for part in parts)}


def spellings(modules: Collection[str]) -> dict[str, list[str]]:
    """What files call the layers of a model with these linear `modules`: name -> the modules whose rows it stacks."""
    found: dict[str, list[str]] = {}
    for module in modules:
        flat = module.replace(".", "_")
        plain = (f"transformer.{module}", f"base_model.model.{module}", module)
        found |= {name: [module] for name in (*plain, f"lora_transformer_{flat}", f"lycoris_{flat}")}
    for name, parts in fused_layers(modules).items():
        found |= {f"diffusion_model.{name}": parts, f"lora_unet_{name.replace('.', '_')}": parts}
    for kind, index, block in _blocks(modules):
        for name, stack in XLABS[kind].items():
            found[f"{kind}_blocks.{index}.processor.{name}"] = [f"{block}.{part}" for part in stack]
        if kind == "single":
            found[f"diffusion_model.single_blocks.{index}.linear1_qkv"] = [f"{block}.{part}" for part in QKV]
    return found


def stacked_rows(module: str, hidden: int) -> int:
    """Rows of a module in a layer that stacks several, for a model `hidden` wide."""
    return MLP_RATIO * hidden if module.endswith(MLP) else hidden


def turned(module: str, rows: Tensor) -> Tensor:
    """A module's rows in the other program's order: all but one are alike."""
    return torch.cat(rows.chunk(2)[::-1]) if module == TURNED else rows


def _blocks(modules: Collection[str]) -> list[tuple[str, int, str]]:
    """The model's blocks: double or single, index, diffusers' path."""
    found = (re.match(r"(single_)?transformer_blocks\.(\d+)", module) for module in modules)
    return sorted({("single" if m[1] else "double", int(m[2]), m[0]) for m in found if m})
