"""FLUX.1 as a policy: the velocity that is trained, and the way between latents and pictures."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from ...errors import ConfigError
from ...stages.inpainting import Init
from ...stages.rollout import BatchVelocity
from ...stages.schedule import resolution_mu
from ..conditioning import Conditioning
from ..family import Place, PolicyOf
from ..files.source import ModelError
from ..lora.attach import activate_lora, enable_loras
from ..lora.names import LayerNames
from ..storage.attention import sound_attention
from . import lora_names
from .conditions import EMBEDDINGS, FILL, POOLED, REFERENCE
from .embedding import embedded, modulate_of
from .encode_image import encode_init
from .geometry import FILL_CHANNELS, Geometry
from .kept import Kept
from .lora_names import TARGETS
from .vae import Autoencoder


@dataclass
class FluxPolicy(PolicyOf[Geometry]):
    """A FLUX.1 transformer (the policy) and what turns its latents into pictures, on one device."""

    network: FluxTransformer2DModel
    autoencoder: Autoencoder | None  # None if it is still to come
    guidance: float  # of the guidance embedding; models without one (FLUX.1-schnell) ignore it
    resolution_shift: bool  # whether its sigmas shift with the resolution: FLUX.1-dev's do, FLUX.1-schnell's do not
    adapter: str = ""  # which LoRA of the network is the policy's; empty if there is one at most
    # called before every model call; whoever wants a run to stop in mid-iteration raises Stopped here
    before_call: Callable[[], None] = lambda: None

    def activate(self) -> None:
        """Make this policy's LoRA the one in use: several policies may share a transformer."""
        if self.adapter:
            activate_lora(self.network, self.adapter)

    @property
    def device(self) -> torch.device:
        """Where it computes. The weights of the blocks may be elsewhere and in 8 bits, this layer's never are."""
        return self.network.x_embedder.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.network.x_embedder.weight.dtype

    def velocity(self, conditioning: Conditioning, geometry: Geometry) -> BatchVelocity:
        """v(x, sigma, rows) for packed x [N, tokens, 64], sigma [N] in [0, 1], rows [N] into `conditioning`.

        The model computes in its own precision; x and v are float32.
        """
        self.activate()
        guidance = self.guidance if self.network.config.guidance_embeds else None
        modulate = modulate_of(self.network, conditioning, guidance)
        conditioning = conditioning.to(self.device)
        told = conditioning.tensors
        dtype, fill, reference = self.dtype, told.get(FILL), told.get(REFERENCE)
        image_ids = geometry.position_ids(self.device)
        if reference is not None:
            image_ids = torch.cat([image_ids, geometry.position_ids(self.device, picture=1)])
        text_ids = image_ids.new_zeros(told[EMBEDDINGS].shape[1], 3)

        def velocity(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
            self.before_call()
            tokens = x if fill is None else torch.cat([x, fill[rows]], -1)
            tokens = tokens if reference is None else torch.cat([tokens, reference[rows]], 1)
            with sound_attention(), embedded(self.network, sigma, rows, guidance, modulate):
                v = self.network(
                    hidden_states=tokens.to(dtype),
                    timestep=sigma,
                    guidance=None if guidance is None else torch.full_like(sigma, guidance),
                    encoder_hidden_states=told[EMBEDDINGS][rows],
                    pooled_projections=told[POOLED][rows],
                    txt_ids=text_ids,
                    img_ids=image_ids,
                    return_dict=False,
                )[0]
            return v[:, : geometry.tokens].float()

        return velocity

    def keep(self, wanted: Collection[Place]) -> Kept | None:
        """What keeps the blocks' inputs of candidates at some calls of `velocity`.

        None without checkpointing: there the update passes each block once.
        """
        return Kept(self.network, wanted) if self.network.gradient_checkpointing else None

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The base model: inside, the LoRA is off."""
        enable_loras(self.network, False)
        try:
            yield
        finally:
            enable_loras(self.network, True)

    def decoding(self) -> AbstractContextManager[None]:
        return self.vae.staying(self.device)

    @torch.no_grad()
    def decode(self, x_0: Tensor, geometry: Geometry) -> Tensor:
        """Packed latents [N, tokens, 64] -> images [N, 3, height, width], float32 in [0, 1]."""
        self.before_call()
        return self.vae.decode(geometry.unpack(x_0))

    @property
    def vae(self) -> Autoencoder:
        if self.autoencoder is None:
            raise ModelError("the model has no autoencoder: give the path of ae.safetensors")
        return self.autoencoder

    @property
    def lora_targets(self) -> Mapping[str, str]:
        return TARGETS

    @property
    def layer_names(self) -> LayerNames:
        return lora_names

    def geometry(self, width: int, height: int) -> Geometry:
        return Geometry(width, height)

    def shift(self, geometry: Geometry) -> float:
        """FLUX.1-dev's follows the resolution, schnell's is none."""
        return math.exp(resolution_mu(geometry.tokens)) if self.resolution_shift else 1.0

    @property
    def sees_mask(self) -> bool:
        """Whether the transformer is FLUX.1-Fill's."""
        return self.network.config.in_channels == FILL_CHANNELS

    def begin_from(self, images: Tensor, mask: Tensor | None, geometry: Geometry, *, reference: bool) -> Init:
        def encode(image: Tensor) -> Tensor:
            return self.vae.encode(image.to(self.device)).to(image.device)

        with self.vae.staying(self.device):
            return encode_init(images, mask, encode, geometry, fill=self.sees_mask, reference=reference)

    def check(self, inits: Sequence[Init]) -> None:
        if self.sees_mask and not (inits and all(FILL in init.seen for init in inits)):
            raise ConfigError(
                "init.mask = '': FLUX.1-Fill draws into pictures; set init.image and init.mask, "
                "or connect Encode Image with a mask"
            )
