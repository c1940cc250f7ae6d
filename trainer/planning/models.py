"""The models of a run at their real sizes on the `meta` device: shapes without data, ready in a second."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .. import tiny
from ..choices import AUTO
from ..models.files.source import EMBEDDED, HUB, resolve
from ..models.flux1.encode_image import encode_init
from ..models.flux1.geometry import Geometry
from ..models.flux1.parts import PUBLISHED
from ..models.flux1.policy import FluxPolicy
from ..models.flux1.single_file import open_single_file
from ..models.flux1.tokens import COMFYUI, DEV, SCHNELL, text_tokens
from ..models.storage.modulation import compute_ahead
from ..settings.config import Config, InitSettings, ModelSettings
from ..stages.inpainting import Init

META = torch.device("meta")


def transformer(path: str) -> FluxTransformer2DModel:
    """The transformer that `model.path` names, its modulation computed ahead as in a run: by the folder's config or
    the file's shapes if they are there, else FLUX.1-schnell's if the name says so, and FLUX.1-dev's.

    Raises:
        ModelError: a file that is no FLUX transformer.
    """
    transformer = _transformer(path)
    compute_ahead(transformer, META)
    return transformer


def _transformer(path: str) -> FluxTransformer2DModel:
    if (folder := folder_of(path)) is not None:
        settings = FluxTransformer2DModel.load_config(folder, subfolder="transformer")
        return _on_meta(lambda: FluxTransformer2DModel.from_config(settings))
    if Path(path).is_file():
        transformer: FluxTransformer2DModel = open_single_file(Path(path))[0].requires_grad_(False).eval()
        return transformer
    return _on_meta(lambda: FluxTransformer2DModel(guidance_embeds=not _is_schnell(path)))


def tokens(model: ModelSettings) -> int:
    """T5 tokens of a prompt: `text_tokens`, by the name alone if the model is not here."""
    if folder_of(model.path) is not None or Path(model.path).is_file():
        return text_tokens(model.text_tokens, resolve(model.path))
    if not isinstance(model.text_tokens, str):
        return model.text_tokens
    reference = SCHNELL if _is_schnell(model.path) else DEV
    return COMFYUI if model.text_tokens == AUTO else reference


def inits(config: Config, policy: FluxPolicy) -> list[Init]:
    """What pictures and mask would be at every size, if the config has some; all of the mask is drawn."""
    settings = config.init
    if policy.sees_mask and not settings.image:  # Fill cannot do without, and its files may be still to come
        settings = replace(settings, image=("a picture",), mask="a mask")
    sizes = config.sampling.all_sizes if settings.image else ()
    return [_init(settings, policy.geometry(*size), policy.sees_mask) for size in sizes]


def _init(settings: InitSettings, geometry: Geometry, fill: bool) -> Init:
    size = geometry.height, geometry.width
    images = torch.zeros(len(settings.image), 3, *size)
    mask = torch.ones(size) if settings.mask else None

    def encoder(images: Tensor) -> Tensor:
        return torch.empty(len(images), *geometry.latent_shape, device=META)

    return encode_init(images, mask, encoder, geometry, fill=fill, reference=settings.reference)


def autoencoder(path: str) -> AutoencoderKL:
    """The folder's autoencoder, else FLUX.1's."""
    settings = AutoencoderKL.load_config(folder_of(path) or PUBLISHED.location, subfolder="vae")
    return _on_meta(lambda: AutoencoderKL.from_config(settings))


def text_encoders(path: str) -> tuple[CLIPTextModel, T5EncoderModel]:
    """The folder's text encoders, else FLUX.1's: CLIP-L and T5-XXL."""
    folder = folder_of(path) or PUBLISHED.location
    clip = CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder")
    t5 = T5Config.from_pretrained(folder, subfolder="text_encoder_2")
    return _on_meta(lambda: CLIPTextModel(clip)), _on_meta(lambda: T5EncoderModel(t5))


def describe(path: str) -> str:
    """Whose sizes these are, for a reader."""
    if path in tiny.MODELS:
        return "the embedded model" if path == EMBEDDED else f"the model {path!r}"
    if folder_of(path) is not None or Path(path).is_file():
        return path
    return f"FLUX.1-{'schnell' if _is_schnell(path) else 'dev'} ({path} is not here)"


def folder_of(path: str) -> Path | None:
    """The diffusers folder that `model.path` means, if it is there."""
    folder = tiny.MODELS[path].folder if path in tiny.MODELS else Path(path)
    return folder if (folder / "model_index.json").is_file() else None


def _is_schnell(path: str) -> bool:
    return "schnell" in path.removeprefix(HUB).lower()


def _on_meta(make: Callable[[], nn.Module]) -> Any:
    with META:
        return make().requires_grad_(False).eval()
