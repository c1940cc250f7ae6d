"""FLUX as a policy: the velocity that is trained, and the decoder that makes pictures of latents."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn

from ..rollout import BatchVelocity
from .geometry import CHANNELS, FILL_CHANNELS, Geometry
from .source import ModelSource
from .text import Conditioning

IN_CHANNELS = (4 * CHANNELS, FILL_CHANNELS)
Decoder = Callable[[Tensor], Tensor]  # latents [N, 16, height / 8, width / 8] -> images [N, 3, height, width] in [0, 1]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class FluxPolicy:
    """A FLUX transformer (the policy) and what turns its latents into pictures, on one device."""

    transformer: FluxTransformer2DModel
    decoder: Decoder
    guidance: float  # of the guidance embedding; models without one (FLUX.1-schnell) ignore it
    resolution_shift: bool  # whether its sigmas shift with the resolution: FLUX.1-dev's do, FLUX.1-schnell's do not
    adapter: str = ""  # which LoRA of the transformer is the policy's; empty where there is one at most
    # called before every model call; whoever wants a run to stop in mid-iteration raises Stopped here
    before_call: Callable[[], None] = lambda: None

    def activate(self) -> None:
        """Make this policy's LoRA the one in use: several policies may share a transformer."""
        if self.adapter:
            self.transformer.set_adapter(self.adapter)

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def velocity(self, conditioning: Conditioning, geometry: Geometry) -> BatchVelocity:
        """v(x, sigma, rows) for packed x [N, tokens, 64], sigma [N] in [0, 1], rows [N] into `conditioning`.

        The model computes in its own precision; x and v are float32.
        """
        self.activate()
        dtype, fill = self.transformer.dtype, conditioning.fill
        image_ids = geometry.position_ids(self.device)
        text_ids = image_ids.new_zeros(conditioning.embeddings.shape[1], 3)
        guided = self.transformer.config.guidance_embeds

        def velocity(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
            self.before_call()
            return self.transformer(
                hidden_states=(x if fill is None else torch.cat([x, fill[rows]], -1)).to(dtype),
                timestep=sigma.to(dtype),
                guidance=sigma.new_full(sigma.shape, self.guidance) if guided else None,
                encoder_hidden_states=conditioning.embeddings[rows],
                pooled_projections=conditioning.pooled[rows],
                txt_ids=text_ids,
                img_ids=image_ids,
                return_dict=False,
            )[0].float()

        return velocity

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The base model: inside, the LoRA is off."""
        self.transformer.disable_adapters()
        try:
            yield
        finally:
            self.transformer.enable_adapters()

    @torch.no_grad()
    def decode(self, x_0: Tensor, geometry: Geometry) -> Tensor:
        """Packed latents [N, tokens, 64] -> images [N, 3, height, width], float32 in [0, 1]."""
        self.before_call()
        return self.decoder(geometry.unpack(x_0))


@dataclass(frozen=True)
class VaeDecoder:
    """The decoder of diffusers' autoencoder, with its scale and shift of the latents."""

    vae: AutoencoderKL

    def __call__(self, z: Tensor) -> Tensor:
        config = self.vae.config
        z = z / config.scaling_factor + (config.shift_factor or 0)
        images = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)


def load_flux(source: ModelSource, *, device: str, dtype: str, guidance: float) -> FluxPolicy:
    """Load transformer and autoencoder of a diffusers folder, frozen, and what its scheduler does to the sigmas.

    Args:
        source: where the model is.
        device: a torch device, such as "cuda" or "cpu".
        dtype: a key of DTYPES, of the transformer and the autoencoder.
        guidance: guidance scale fed to the guidance embedding, 3.5 for FLUX.1-dev.

    Raises:
        ModelError: a missing folder, a missing part, or a model of another kind.
    """
    transformer = source.load_model(FluxTransformer2DModel, "transformer", torch_dtype=DTYPES[dtype])
    vae = source.load_model(AutoencoderKL, "vae", torch_dtype=DTYPES[dtype])
    if transformer.config.in_channels not in IN_CHANNELS:
        known = " or ".join(map(str, IN_CHANNELS))
        raise source.error(f"its transformer takes {transformer.config.in_channels} channels, FLUX takes {known}")
    for module in (transformer, vae):
        _freeze(module, device)
    scheduler = source.load(FlowMatchEulerDiscreteScheduler, "scheduler")
    return FluxPolicy(transformer, VaeDecoder(vae), guidance, scheduler.config.use_dynamic_shifting)


def _freeze(module: nn.Module, device: str) -> None:
    module.requires_grad_(False).eval().to(device)
