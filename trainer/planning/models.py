"""The models of a run at their real sizes on the `meta` device: shapes without data, ready in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .. import tiny
from ..models.single_file import MARK, PREFIX, configuration
from ..models.source import EMBEDDED, HUB, ModelError

META = torch.device("meta")
# of FLUX.1's autoencoder and text encoders, the same for dev and schnell; the transformer's are the class's defaults
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
T5_XXL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
CLIP_L: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
}


def transformer(path: str) -> FluxTransformer2DModel:
    """The transformer that `model.path` names: by the folder's config or the file's shapes where they are there,
    else FLUX.1-schnell's if the name says so, and FLUX.1-dev's.

    Raises:
        ModelError: a file that is no FLUX transformer.
    """
    if (folder := folder_of(path)) is not None:
        settings = FluxTransformer2DModel.load_config(folder, subfolder="transformer")
        return _on_meta(lambda: FluxTransformer2DModel.from_config(settings))
    settings = _file_settings(Path(path)) if Path(path).is_file() else {"guidance_embeds": not _is_schnell(path)}
    return _on_meta(lambda: FluxTransformer2DModel(**settings))


def autoencoder(path: str) -> AutoencoderKL:
    """The folder's autoencoder, else FLUX.1's."""
    if (folder := folder_of(path)) is not None:
        settings = AutoencoderKL.load_config(folder, subfolder="vae")
        return _on_meta(lambda: AutoencoderKL.from_config(settings))
    return _on_meta(lambda: AutoencoderKL(**VAE))


def text_encoders(path: str) -> tuple[CLIPTextModel, T5EncoderModel]:
    """The folder's text encoders, else FLUX.1's: CLIP-L and T5-XXL."""
    if (folder := folder_of(path)) is not None:
        clip = CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder")
        t5 = T5Config.from_pretrained(folder, subfolder="text_encoder_2")
    else:
        clip, t5 = CLIPTextConfig(**CLIP_L), T5Config(**T5_XXL)
    return _on_meta(lambda: CLIPTextModel(clip)), _on_meta(lambda: T5EncoderModel(t5))


def describe(path: str) -> str:
    """Whose sizes these are, for a reader."""
    if path == EMBEDDED:
        return "the embedded model"
    if folder_of(path) is not None or Path(path).is_file():
        return path
    return f"FLUX.1-{'schnell' if _is_schnell(path) else 'dev'} ({path} is not here)"


def folder_of(path: str) -> Path | None:
    """The diffusers folder that `model.path` means, if it is there."""
    folder = tiny.FLUX if path == EMBEDDED else Path(path)
    return folder if (folder / "model_index.json").is_file() else None


def _is_schnell(path: str) -> bool:
    return "schnell" in path.removeprefix(HUB).lower()


def _file_settings(path: Path) -> dict[str, object]:
    """By the shapes in the file's header; no tensor is read."""
    try:
        with safe_open(path, "pt") as file:
            shapes = {name.removeprefix(PREFIX): file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}): download it again") from error
    if MARK not in shapes:
        raise ModelError(f"{path} is not a FLUX transformer ({MARK} is missing): choose FLUX.1-dev or -schnell")
    return configuration({name: torch.empty(shape, device=META) for name, shape in shapes.items()})


def _on_meta(make: Callable[[], nn.Module]) -> Any:
    with META:
        return make().requires_grad_(False).eval()
