"""FLUX as a policy: the velocity that is trained, and the decoder that makes pictures of latents."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn

from ...device import computes_bfloat16
from ...stages.rollout import BatchVelocity
from ..files.source import ModelSource
from ..lora.attach import activate_lora
from ..storage.attention import checkpoint_blocks, sound_attention
from ..storage.compiling import compile_blocks
from ..storage.memory import keeping, visiting
from .geometry import Geometry
from .parts import load_vae
from .text import Conditioning
from .transformer import load_transformer

Decoder = Callable[[Tensor], Tensor]  # latents [N, 16, height / 8, width / 8] -> images [N, 3, height, width] in [0, 1]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SINGLY, TILED = 512, 1024  # pixels of the longer side, above which pictures are decoded one at a time and in tiles


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
            activate_lora(self.transformer, self.adapter)

    @property
    def device(self) -> torch.device:
        """Where it computes. The weights of the blocks may be elsewhere and in 8 bits, this layer's never are."""
        return self.transformer.x_embedder.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.transformer.x_embedder.weight.dtype

    def velocity(self, conditioning: Conditioning, geometry: Geometry) -> BatchVelocity:
        """v(x, sigma, rows) for packed x [N, tokens, 64], sigma [N] in [0, 1], rows [N] into `conditioning`.

        The model computes in its own precision; x and v are float32.
        """
        self.activate()
        conditioning = conditioning.to(self.device)
        dtype, fill, reference = self.dtype, conditioning.fill, conditioning.reference
        image_ids = geometry.position_ids(self.device)
        if reference is not None:
            image_ids = torch.cat([image_ids, geometry.position_ids(self.device, picture=1)])
        text_ids = image_ids.new_zeros(conditioning.embeddings.shape[1], 3)
        guided = self.transformer.config.guidance_embeds

        def velocity(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
            self.before_call()
            tokens = x if fill is None else torch.cat([x, fill[rows]], -1)
            tokens = tokens if reference is None else torch.cat([tokens, reference[rows]], 1)
            guidance = sigma.new_full(sigma.shape, self.guidance) if guided else None
            with sound_attention(), exact_times(self.transformer, sigma, guidance):
                v = self.transformer(
                    hidden_states=tokens.to(dtype),
                    timestep=sigma,
                    guidance=guidance,
                    encoder_hidden_states=conditioning.embeddings[rows],
                    pooled_projections=conditioning.pooled[rows],
                    txt_ids=text_ids,
                    img_ids=image_ids,
                    return_dict=False,
                )[0]
            return v[:, : geometry.tokens].float()

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


@contextmanager
def exact_times(transformer: FluxTransformer2DModel, sigma: Tensor, guidance: Tensor | None) -> Iterator[None]:
    """Inside, the embedding of the time gets sigma and guidance [N] in float32, times 1000, as in ComfyUI.

    diffusers rounds both to the model's precision beforehand: of bfloat16's 8 bits, sigma = 0.9 becomes 0.8984.
    """
    times = [1000 * t.float() for t in (sigma, guidance) if t is not None]

    def exactly(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (*times, inputs[-1])  # the last is CLIP's vector

    hook = transformer.time_text_embed.register_forward_pre_hook(exactly)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class VaeDecoder:
    """The decoder of diffusers' autoencoder, with its scale and shift of the latents.

    Its weights come to the latents' device for the decoding. Large pictures are decoded singly, larger ones in tiles.
    """

    vae: AutoencoderKL

    def __call__(self, z: Tensor) -> Tensor:
        config = self.vae.config
        z = z / config.scaling_factor + (config.shift_factor or 0)
        side = 8 * max(z.shape[-2:])
        self.vae.use_slicing, self.vae.use_tiling = side > SINGLY, side > TILED
        with visiting(self.vae, z.device):
            images = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)


def load_flux(
    source: ModelSource,
    *,
    device: str,
    dtype: str,
    guidance: float,
    memory: str = "bf16",
    offload: float = 0.0,
    checkpointing: bool = False,
    compiled: bool = False,
) -> FluxPolicy:
    """Load transformer and autoencoder, frozen, and what the model does to the sigmas.

    Args:
        source: where the model is.
        device: a torch device, such as "cuda" or "cpu".
        dtype: a key of DTYPES, of the transformer; the autoencoder's follows, see `vae_dtype`.
        guidance: guidance scale fed to the guidance embedding, 3.5 for FLUX.1-dev.
        memory, offload: see `plan_for`; "auto" by the weights alone.
        checkpointing: whether the blocks' activations are computed again in the backward pass instead of kept.
        compiled: whether torch.compile makes the blocks faster, see `compile_blocks`.

    Raises:
        ModelError: a missing file, folder or part, or a model of another kind.
        MemoryPlanError: nf4 without bitsandbytes.
    """
    options = {"checkpointing": checkpointing, "compiled": compiled}
    transformer = load_placed(source, memory, offload, device=device, dtype=DTYPES[dtype], **options)
    vae = load_vae(source, dtype=vae_dtype(DTYPES[dtype], device))
    return FluxPolicy(transformer, VaeDecoder(vae), guidance, shifts(source, transformer))


def vae_dtype(dtype: torch.dtype, device: str) -> torch.dtype:
    """What the autoencoder computes in, beside a transformer of `dtype`: float16 is too narrow for FLUX's."""
    if dtype != torch.float16:
        return dtype
    return torch.bfloat16 if computes_bfloat16(device) else torch.float32


def load_placed(
    source: ModelSource,
    memory: str,
    offload: float,
    *,
    device: str,
    dtype: torch.dtype,
    checkpointing: bool,
    compiled: bool = False,
) -> FluxTransformer2DModel:
    """The frozen transformer, each weight put where and how its memory plan says as it is read, see `load_flux`."""
    transformer = load_transformer(source, dtype=dtype, keep=keeping(memory, offload, device=device, dtype=dtype))
    if checkpointing:  # it takes place where gradients are asked for: rollouts keep no activations anyway
        checkpoint_blocks(transformer)
    if compiled:
        compile_blocks(transformer, device)
    return transformer


def shifts(source: ModelSource, transformer: FluxTransformer2DModel) -> bool:
    """Whether the model's sigmas shift with the resolution."""
    if source.file:  # a file says nothing of its sigmas; of the published models, those with guidance shift them
        return transformer.config.guidance_embeds
    return source.load(FlowMatchEulerDiscreteScheduler, "scheduler").config.use_dynamic_shifting
