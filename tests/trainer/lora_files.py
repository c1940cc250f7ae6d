"""Random LoRAs of a FLUX in the formats that others write, and what each of them adds to the weights.

A format names each layer and its halves. The layers are those of Black Forest Labs' files, or diffusers' modules.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from diffusers import FluxTransformer2DModel
from original_names import original_layout
from torch import Tensor, nn

KOHYA = (".lora_up.weight", ".lora_down.weight")
PEFT = (".lora_B.weight", ".lora_A.weight")
XLABS = {
    "img_attn.qkv": "processor.qkv_lora1",
    "txt_attn.qkv": "processor.qkv_lora2",
    "img_attn.proj": "processor.proj_lora1",
    "txt_attn.proj": "processor.proj_lora2",
    "linear2": "processor.proj_lora",
}
FUSED, SPLIT = "double_blocks single_blocks".split(), "transformer_blocks single_transformer_blocks".split()
# name -> (which layers, how a layer is called, endings of its halves, whether there is an alpha)
FORMATS = {
    "diffusers": (SPLIT, "transformer.{}".format, PEFT, False),
    "diffusers with alpha": (SPLIT, "transformer.{}".format, PEFT, True),
    "diffusers, a model's own": (SPLIT, "{}".format, PEFT, False),
    "PEFT": (SPLIT, "base_model.model.{}".format, PEFT, False),
    "PEFT, named": (SPLIT, "transformer.{}".format, (".lora_B.default.weight", ".lora_A.default.weight"), False),
    "old diffusers": (SPLIT, "transformer.{}".format, ("_lora.up.weight", "_lora.down.weight"), True),
    "old diffusers 2": (SPLIT, "transformer.{}".format, (".lora.up.weight", ".lora.down.weight"), False),
    "old diffusers 3": (
        SPLIT, "transformer.{}".format, (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"), False,
    ),
    "OneTrainer": (SPLIT, lambda name: f"lora_transformer_{name.replace('.', '_')}", KOHYA, True),
    "LyCORIS": (SPLIT, lambda name: f"lycoris_{name.replace('.', '_')}", KOHYA, True),
    "kohya": (FUSED, lambda name: f"lora_unet_{name.replace('.', '_')}", KOHYA, True),
    "ai-toolkit": (FUSED, "diffusion_model.{}".format, PEFT, False),
    "generic": (FUSED, "diffusion_model.{}".format, KOHYA, True),
    "bare halves": (FUSED, "diffusion_model.{}".format, (".lora_B", ".lora_A"), False),
}  # fmt: skip


def layers_of(model: FluxTransformer2DModel, blocks: list[str]) -> dict[str, Tensor]:
    """Weight matrices of the blocks' attention and feed-forward, under one of the two ways of naming."""
    weights = original_layout(model) if blocks is FUSED else model.state_dict()
    return {
        name.removesuffix(".weight"): weight
        for name, weight in weights.items()
        if name.startswith(tuple(blocks)) and name.endswith(".weight") and weight.ndim == 2
        if not any(word in name for word in ("mod.lin", "modulation", "norm"))
    }


def write(kind: str, model: FluxTransformer2DModel, rank: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A random LoRA's file in the format `kind`, and what it adds to each weight matrix of its naming."""
    blocks, called, (up_ending, down_ending), has_alpha = FORMATS[kind]
    return random_lora(layers_of(model, blocks), called, up_ending, down_ending, has_alpha, rank)


def write_xlabs(model: FluxTransformer2DModel, rank: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """XLabs' LoRA: the double blocks' attention, and of a single block its queries, keys and values and its output."""

    def called(name: str) -> str:
        block, index, layer = name.split(".", 2)
        return f"{block}.{index}.{XLABS[layer]}"

    layers = layers_of(model, FUSED)
    halves = (".up.weight", ".down.weight", False, rank)
    file, added = random_lora({n: w for n, w in layers.items() if n.split(".", 2)[2] in XLABS}, called, *halves)
    for name, weight in layers.items():
        if name.endswith("linear1"):  # its first rows alone: nothing is added to the feed-forward
            rows = 3 * weight.shape[1]
            block = name.removesuffix(".linear1")
            qkv = {f"{block}.processor.qkv_lora": weight[:rows]}
            part, delta = random_lora(qkv, str, *halves)
            file |= part
            added[name] = torch.cat([next(iter(delta.values())), torch.zeros(len(weight) - rows, weight.shape[1])])
    return file, added


def random_lora(
    layers: Mapping[str, Tensor], called, up_ending: str, down_ending: str, has_alpha: bool, rank: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    file, added = {}, {}
    for i, (name, weight) in enumerate(sorted(layers.items())):
        up = 0.2 * torch.randn(len(weight), rank, generator=generator)
        down = 0.2 * torch.randn(rank, weight.shape[1], generator=generator)
        file |= {called(name) + up_ending: up, called(name) + down_ending: down}
        if has_alpha:
            file[f"{called(name)}.alpha"] = torch.tensor(1.5 + i % 3)  # another in each layer
        added[name] = ((1.5 + i % 3) / rank if has_alpha else 1.0) * up @ down
    return file, added


@torch.no_grad()
def merged(transformer: FluxTransformer2DModel, adapter: str, base: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """`base`, a copy of the frozen model, with the LoRA in its weights."""
    for name, layer in base.named_modules():
        carrier = transformer.get_submodule(name)
        if isinstance(layer, nn.Linear) and adapter in getattr(carrier, "lora_A", ()):
            carrier = deepcopy(carrier)
            carrier.merge(adapter_names=[adapter])
            layer.weight.copy_(carrier.get_base_layer().weight)
    return base
