"""ComfyUI's class of FLUX, of any size and in any of its versions. For processes in which ComfyUI can be imported."""

import dataclasses
from typing import Any

import comfy.model_base
import comfy.supported_models
import torch
from comfy.ldm.flux.model import FluxParams

ALWAYS = {
    "image_model": "flux", "in_channels": 16, "patch_size": 2, "out_channels": 16, "mlp_ratio": 4.0, "theta": 10000,
    "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
SINCE = {"txt_ids_dims": []}  # 0.3.76


def flux(device: str, **sizes: Any) -> comfy.model_base.Flux:
    known = {field.name for field in dataclasses.fields(FluxParams)}
    later = {name: value for name, value in SINCE.items() if name in known}
    return comfy.model_base.Flux(comfy.supported_models.Flux(ALWAYS | sizes | later), device=device)


def load(model: comfy.model_base.Flux, tensors: dict[str, torch.Tensor]) -> None:
    """Weights under Black Forest Labs' names, of which ComfyUI has renamed some since 0.14."""
    model.diffusion_model.load_state_dict(model.model_config.process_unet_state_dict(tensors))


def original(name: str) -> str:
    """The name in Black Forest Labs' files of a tensor of the model."""
    name = name.removeprefix("diffusion_model.")
    return f"{name.removesuffix('.weight')}.scale" if name.endswith("_norm.weight") else name
