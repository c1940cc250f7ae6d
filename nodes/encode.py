"""Encode Image: pictures to begin from, by the policy's own autoencoder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..trainer.errors import UserError
from ..trainer.settings.config import InitSettings
from . import host, policies
from .inputs import setting_input
from .latents import FILL, REFERENCE, autoencoder_of
from .newer import rare, searched_by
from .wires import CATEGORY, NEIGHBORHOOD, POLICY, Neighborhood

if TYPE_CHECKING:
    from comfy.sd import VAE
    from torch import Tensor


class EncodeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOEncodeImage",
            display_name="Encode Image",
            category=CATEGORY,
            **searched_by("vae encode", "image to image"),
            description="Cuts pictures to the candidates' size and encodes them with the policy's own VAE, as what "
            "Train and Rollout begin from (image-to-image, inpainting).",
            inputs=[
                POLICY.Input("policy", tooltip="Whose VAE encodes, and whether it sees the mask (FLUX.1-Fill)."),
                NEIGHBORHOOD.Input("neighborhood", tooltip="Has the size that the pictures are cut to."),
                io.Image.Input(
                    "images",
                    tooltip="Scaled to cover the size; what stands out is cut off evenly. One for all prompts, or one "
                    "for each.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Of the pictures' size, cut like them: white is drawn anew (inpainting).",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Encodes in place of the policy's own. Needed if the model is a single file.",
                ),
                *rare(setting_input(InitSettings, "reference", optional=True)),
            ],
            outputs=[
                io.Latent.Output(
                    "latent", display_name="latent", tooltip="For Train and Rollout; holds the mask if there is one."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        policy: policies.Policy,
        neighborhood: Neighborhood,
        images: Tensor,
        mask: Tensor | None = None,
        vae: VAE | None = None,
        reference: bool = InitSettings.reference,
    ) -> io.NodeOutput:
        import torch
        from comfy.latent_formats import Flux

        from ..trainer.models.flux1 import conditions
        from ..trainer.pictures.convert import channels_first, fitted, to_grey, to_pictures, zero_to_one

        pixels = channels_first(images, "Encode Image")
        if mask is not None and mask.shape != (1, *images.shape[1:3]):
            wanted = [1, *images.shape[1:3]]
            raise UserError(f"the mask has shape {list(mask.shape)}, {wanted} is needed: one, of the pictures' size")
        size = neighborhood.width, neighborhood.height
        flux = replace(policy.flux, autoencoder=autoencoder_of(policy.flux, vae))
        with host.training_mode():
            cut = torch.stack([fitted(picture, size) for picture in to_pictures(pixels)])
            grey = None if mask is None else fitted(to_grey(zero_to_one(mask[0], "a mask")), size)[0]
            init = flux.begin_from(cut, grey, flux.geometry(*size), reference=False)
            latent = {"samples": Flux().process_out(init.latents.cpu()), REFERENCE: reference}
            if grey is not None:
                latent["noise_mask"] = grey[None, None]
            if conditions.FILL in init.seen:
                latent[FILL] = init.seen[conditions.FILL].cpu()
        return io.NodeOutput(latent)
