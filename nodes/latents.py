"""ComfyUI's VAE and latents as the engine's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..trainer.errors import UserError
from ..trainer.settings.config import InitSettings
from . import host
from .wires import Neighborhood

if TYPE_CHECKING:
    import torch
    from comfy.sd import VAE
    from torch import Tensor

    from ..trainer.models.flux1.geometry import Geometry
    from ..trainer.models.flux1.policy import FluxPolicy
    from ..trainer.models.flux1.vae import Autoencoder
    from ..trainer.stages.inpainting import Init

# in a LATENT by Encode Image
FILL = "neighbor_grpo_fill"  # what FLUX.1-Fill sees of picture and mask
REFERENCE = "neighbor_grpo_reference"  # whether the model sees the pictures


def ready(flux: FluxPolicy, vae: VAE | None, before_call: Callable[[], None]) -> FluxPolicy:
    """The policy with something to decode by."""
    return replace(flux, autoencoder=autoencoder_of(flux, vae), before_call=before_call)


def autoencoder_of(flux: FluxPolicy, vae: VAE | None) -> Autoencoder:
    """ComfyUI's VAE, or the policy's own."""
    if vae is not None:
        return ComfyVae(vae)
    if flux.autoencoder is None:
        raise UserError("the model is a single file without a VAE: connect Load VAE (ae.safetensors) to 'vae'")
    return flux.autoencoder


class ComfyVae:
    """ComfyUI's VAE, which expects and leaves latents as its own FLUX models do. See `Autoencoder`."""

    def __init__(self, vae: VAE):
        from comfy.latent_formats import Flux

        self.vae, self.latents = vae, Flux()

    def staying(self, device: torch.device) -> AbstractContextManager[None]:
        return nullcontext()  # ComfyUI moves its models itself

    def decode(self, z: Tensor) -> Tensor:
        images = self.vae.decode(self.latents.process_out(z))  # [N, H, W, 3] in [0, 1]
        return images.movedim(-1, 1).to(z.device).float().clamp(0, 1)

    def encode(self, images: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            return self.latents.process_in(self.vae.encode(images.movedim(1, -1))).float()


def begun(
    latent: dict[str, Any] | None, denoise: float, mask: Tensor | None, neighborhood: Neighborhood, prompts: int
) -> tuple[InitSettings, list[Init]]:
    """ComfyUI's LATENT and MASK as what trajectories begin from; nothing of them for text-to-image.

    The mask of "Set Latent Noise Mask" counts if none is given.

    Args:
        mask: [1, height, width] in [0, 1], 1 where pictures are drawn anew.
        prompts: how many there are: the LATENT holds one picture, or one for each.

    Raises:
        UserError: the LATENT is missing below denoise 1 or beside a mask, or one of them is of another size or number,
            or what FLUX.1-Fill sees is of another mask.
    """
    if mask is not None and latent is not None and FILL in latent:
        raise UserError("FLUX.1-Fill sees the mask that the picture was encoded with: connect it to Encode Image alone")
    if mask is None and latent is not None:
        mask = latent.get("noise_mask")
    reference = latent is not None and latent.get(REFERENCE, False)
    if denoise == 1 and mask is None and not reference:
        return InitSettings(), []
    if latent is None:
        if mask is not None:
            raise UserError("a mask needs a picture: connect VAE Encode to 'latent', or take the mask away")
        raise UserError(f"denoise = {denoise:g} needs a picture: connect VAE Encode to 'latent', or set denoise to 1")
    if neighborhood.more_sizes:
        raise UserError("the picture to begin from has one size: leave more_sizes of Noise Neighborhood empty")
    from comfy.latent_formats import Flux

    from ..trainer.models.flux1 import conditions
    from ..trainer.models.flux1.encode_image import latent_mask
    from ..trainer.models.flux1.geometry import Geometry
    from ..trainer.stages.inpainting import Init

    with host.training_mode():  # copies that may take part in a backward pass
        geometry = Geometry(neighborhood.width, neighborhood.height)
        samples = checked(latent["samples"], geometry, prompts).clone()
        cells = None if mask is None else latent_mask(flat(mask.clone(), neighborhood))
        total = hashlib.sha256(samples.float().numpy().tobytes())
        if cells is not None:
            total.update(cells.numpy().tobytes())
        settings = InitSettings(denoise=denoise, reference=reference, digest=total.hexdigest())
        latents = Flux().process_in(samples).float()
        seen = {conditions.REFERENCE: geometry.pack(latents)} if reference else {}
        if FILL in latent:
            seen[conditions.FILL] = latent[FILL].clone()
        return settings, [Init(latents, cells, seen)]


def checked(samples: Tensor, geometry: Geometry, prompts: int) -> Tensor:
    """Latents on the CPU, of FLUX's channels and the neighborhood's size, one or as many as prompts."""
    wanted = (1, *geometry.latent_shape)
    if tuple(samples.shape[1:]) != wanted[1:]:
        raise UserError(
            f"the latent has shape {list(samples.shape)}, {list(wanted)} is needed: encode one picture of "
            f"{geometry.width} x {geometry.height} pixels with FLUX's VAE"
        )
    if not samples.isfinite().all():
        raise UserError("the latent has values that are no finite numbers: encode it again, in float32 (--fp32-vae)")
    if len(samples) not in (1, prompts):
        raise UserError(f"{len(samples)} pictures for {prompts} prompts: encode one for all, or one for each")
    return samples.cpu()


def flat(mask: Tensor, neighborhood: Neighborhood) -> Tensor:
    """One mask [height, width] on the CPU, of [1, height, width] or the [1, 1, height, width] within a LATENT."""
    from ..trainer.pictures.convert import zero_to_one

    if mask.ndim < 2:
        raise UserError(f"the mask has shape {list(mask.shape)}: must be [1, height, width]")
    height, width = mask.shape[-2:]
    if (width, height) != (neighborhood.width, neighborhood.height):
        raise UserError(
            f"the mask has {width} x {height} pixels, the candidates {neighborhood.width} x {neighborhood.height}: "
            "scale it to their size, or let Encode Image do it"
        )
    if mask.numel() != width * height:
        raise UserError(f"{mask.numel() // (width * height)} masks: connect one, for all pictures")
    return zero_to_one(mask.reshape(height, width), "a mask")
