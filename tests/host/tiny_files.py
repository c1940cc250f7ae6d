"""The embedded FLUX as the single files that ComfyUI's own loaders read (with the help of tiny_flux_shim)."""

import json
import math
import shutil
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer import tiny

SCALE, SHIFT = 0.3611, 0.1159  # between FLUX's latents and its autoencoder's; ComfyUI knows no others
CLIP_VOCABULARY = 49408  # rows of ComfyUI's CLIP embedding

NAMES = {
    "unet": "diffusion_models/tiny_flux.safetensors",
    "clip": "text_encoders/tiny_clip.safetensors",
    "t5": "text_encoders/tiny_t5.safetensors",
    "vae": "vae/tiny_vae.safetensors",
}


def write(models: Path, flux: Path = tiny.FLUX) -> None:
    """Write NAMES into ComfyUI's models folder, float32, from a diffusers folder."""
    parts = {
        "unet": _weights(flux / "transformer"),  # ComfyUI reads diffusers' names itself
        "clip": _clip(flux),
        "t5": _weights(flux / "text_encoder_2") | _tokenizer(flux / "tokenizer_2"),
        "vae": _vae(flux / "vae"),
    }
    for part, name in NAMES.items():
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(parts[part], models / name)


def write_fill(folder: Path) -> Path:
    """The embedded model as it would see picture and mask, like FLUX.1-Fill, and pay them no heed; returns `folder`."""
    shutil.copytree(tiny.FLUX, folder)
    plain = FluxTransformer2DModel.from_pretrained(tiny.FLUX, subfolder="transformer")
    model = FluxTransformer2DModel.from_config({**plain.config, "in_channels": 384, "out_channels": 64})
    weights = plain.state_dict()
    weights["x_embedder.weight"] = torch.nn.functional.pad(weights["x_embedder.weight"], (0, 320))
    model.load_state_dict(weights)
    model.save_pretrained(folder / "transformer")
    return folder


def _weights(folder: Path) -> dict[str, Tensor]:
    (path,) = folder.glob("*.safetensors")
    return {name: weight.float() for name, weight in load_file(path).items()}


def _tokenizer(folder: Path) -> dict[str, Tensor]:
    """As bytes among the weights, like ComfyUI keeps tokenizers of other models."""
    return {"tokenizer_json": torch.frombuffer(bytearray((folder / "tokenizer.json").read_bytes()), dtype=torch.uint8)}


def _clip(flux: Path) -> dict[str, Tensor]:
    weights = {f"text_model.{n.removeprefix('text_model.')}": w for n, w in _weights(flux / "text_encoder").items()}
    table = weights["text_model.embeddings.token_embedding.weight"]
    unused = table.new_zeros(CLIP_VOCABULARY - len(table), table.shape[1])
    weights["text_model.embeddings.token_embedding.weight"] = torch.cat([table, unused])
    return weights | _tokenizer(flux / "tokenizer")


def _vae(folder: Path) -> dict[str, Tensor]:
    """With 1 x 1 convolutions that turn ComfyUI's scale and shift of the latents into this autoencoder's.

    ComfyUI gives z = x / SCALE + SHIFT where this decoder wants x / scale + shift, and so backwards after encoding.
    """
    weights = _weights(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    scale, shift = config["scaling_factor"], config["shift_factor"] or 0
    ratio, offset = SCALE / scale, shift - SHIFT * SCALE / scale
    one = torch.ones(config["latent_channels"])
    mean_and_log_variance = torch.cat([one / ratio, one])
    return weights | {
        "post_quant_conv.weight": torch.diag(ratio * one)[..., None, None],
        "post_quant_conv.bias": offset * one,
        "quant_conv.weight": torch.diag(mean_and_log_variance)[..., None, None],
        "quant_conv.bias": torch.cat([-offset / ratio * one, -2 * math.log(ratio) * one]),
        "norm_num_groups": torch.tensor(config["norm_num_groups"]),
    }
