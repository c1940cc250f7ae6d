"""The LoRA's file, for ComfyUI and diffusers, in one of two layouts."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...files import written_whole
from .attach import MAGNITUDE, lora_scale, row_norms
from .names import LayerNames
from .targets import LoraError, linear_layers

PREFIX = "transformer."
A, B, ALPHA, DORA = ".lora_A.weight", ".lora_B.weight", ".alpha", ".dora_scale"


def export_lora(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> Path:
    """Write a LoRA's file of `file_tensors`; it appears whole or not at all."""
    with written_whole(path) as partial:
        save_file(dict(tensors), partial, metadata=file_metadata(metadata))
    return path


def file_metadata(metadata: Mapping[str, object]) -> dict[str, str]:
    """Values that are not text become JSON."""
    text = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in metadata.items()}
    return {"format": "pt", **text}


def file_tensors(
    weights: Mapping[str, Tensor],
    alpha: float,
    *,
    variant: str = "lora",
    names: LayerNames | None = None,
    network: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Copies of a LoRA's weights under the names of a file, float32 on the CPU.

    As diffusers names them: `transformer.<module>.lora_A.weight`, `.lora_B.weight` and `.alpha`, which both programs
    read. The `.alpha` tensors are there because ComfyUI scales by alpha / rank only when it finds them; rsLoRA's
    contain its scale. DoRA adds `.dora_scale`, which only ComfyUI reads. With `names`, the family's, see
    `kohya_layout`.

    Args:
        weights: named as `attach_lora` names them; an average of them as well.
        alpha: that the LoRA was attached with.
        variant: that it was attached with.
        network: the frozen model, needed for DoRA.
    """
    tensors = {PREFIX + name: w.detach().float().cpu().clone() for name, w in weights.items() if MAGNITUDE not in name}
    for name, down in weights.items():
        if name.endswith(A):
            module, rank = name.removesuffix(A), len(down)
            factor = math.sqrt(rank) if variant == "rslora" else 1.0
            tensors[PREFIX + module + ALPHA] = torch.tensor(float(alpha) * factor)
    if variant == "dora":
        layers = {} if network is None else dict(linear_layers(network))
        tensors |= _dora_scales(weights, alpha, layers)
    return kohya_layout(tensors, names) if names else tensors


@torch.no_grad()
def _dora_scales(weights: Mapping[str, Tensor], alpha: float, layers: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """`.dora_scale` [out, 1] of every module.

    DoRA makes W + s B A into rows of length m. ComfyUI multiplies its rows by dora_scale / ||row of W||, with the
    length before the LoRA, so the file's number is m ||row of W|| / ||row of W + s B A||.
    """
    tensors = {}
    for name, magnitude in weights.items():
        if MAGNITUDE in name:
            module = name.removesuffix(f".{MAGNITUDE}.weight")
            a, b = weights[module + A], weights[module + B]
            w = layers[module].weight.float()
            ratio = row_norms(w) / row_norms(w + lora_scale(alpha, len(a)) * b @ a)
            tensors[PREFIX + module + DORA] = (magnitude * ratio)[:, None].cpu()
    return tensors


def kohya_layout(tensors: Mapping[str, Tensor], names: LayerNames) -> dict[str, Tensor]:
    """A file's tensors as kohya's scripts name them: `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight`, `.alpha`.

    The layers are Black Forest Labs' fused ones. The LoRAs of n modules in one layer become one of n times the rank,
    `up` block-diagonal, with n times the alpha: alpha / rank stays as it is, and so does every row's change.

    Raises:
        LoraError: the tensors are not in the diffusers layout, or they are a DoRA's: a module without a LoRA would need
            the lengths of its own rows.
    """
    modules = {name.removeprefix(PREFIX).removesuffix(A) for name in tensors if name.endswith(A)}
    odd = tensors.keys() ^ {PREFIX + module + part for module in modules for part in (A, B, ALPHA)}
    if any(name.endswith(DORA) for name in odd):
        raise LoraError("layout 'kohya': a DoRA does not fit into fused layers: save it as 'diffusers'")
    if odd or not modules:
        name = min(odd, default="none")
        raise LoraError(f"layout 'kohya': {name} is no tensor of this project's LoRAs: save it as 'diffusers'")
    result = {}
    for layer, stacked in names.fused_layers(modules).items():
        present = [module for module in stacked if module in modules]
        downs = [tensors[PREFIX + module + A] for module in present]
        ups = iter([names.turned(module, tensors[PREFIX + module + B]) for module in present])
        hidden = downs[0].shape[1]  # if modules are stacked, all have the block's input
        blocks = [next(ups) if m in modules else downs[0].new_zeros(names.stacked_rows(m, hidden), 0) for m in stacked]
        name = f"lora_unet_{layer.replace('.', '_')}"
        result[f"{name}.lora_down.weight"] = torch.cat(downs)
        result[f"{name}.lora_up.weight"] = torch.block_diag(*blocks)
        result[f"{name}.alpha"] = len(present) * tensors[PREFIX + present[0] + ALPHA]
    return result
