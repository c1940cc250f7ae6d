"""ComfyUI's VAE and latents as the engine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..trainer.errors import UserError
from . import host
from .wires import Neighborhood

if TYPE_CHECKING:
    from torch import Tensor

    from ..trainer.models.flux import Decoder, FluxPolicy


def ready(flux: FluxPolicy, vae: object | None, before_call: Callable[[], None]) -> FluxPolicy:
    """The policy with something to decode by."""
    decoder = comfy_decoder(vae) if vae is not None else flux.decoder
    if decoder is None:
        raise UserError("the model is a single file without a VAE: connect Load VAE (ae.safetensors) to 'vae'")
    return replace(flux, decoder=decoder, before_call=before_call)


def comfy_decoder(vae: object) -> Decoder:
    """ComfyUI's VAE, which expects latents as its own FLUX models leave them."""
    from comfy.latent_formats import Flux

    latents = Flux()

    def decode(z):
        images = vae.decode(latents.process_out(z))  # [N, H, W, 3] in [0, 1]
        return images.movedim(-1, 1).to(z.device).float().clamp(0, 1)

    return decode


def init_latent(latent: dict[str, Any] | None, denoise: float, neighborhood: Neighborhood) -> Tensor | None:
    """ComfyUI's LATENT as FLUX's transformer sees it, [16, height / 8, width / 8]; None for text-to-image.

    Raises:
        UserError: it is missing below denoise 1, of another model or size, or there are several.
    """
    if denoise == 1:
        return None
    if latent is None:
        raise UserError(f"denoise = {denoise:g} needs a picture: connect VAE Encode to 'latent', or set denoise to 1")
    from comfy.latent_formats import Flux

    from ..trainer.models.geometry import Geometry

    samples = latent["samples"]
    width, height = neighborhood.width, neighborhood.height
    wanted = (1, *Geometry(width, height).latent_shape)
    if tuple(samples.shape) != wanted:
        raise UserError(
            f"the latent has shape {list(samples.shape)}, {list(wanted)} is needed: encode one picture of "
            f"{width} x {height} pixels with FLUX's VAE"
        )
    with host.training_mode():  # a copy that may take part in a backward pass
        return Flux().process_in(samples.clone()).float()[0]
