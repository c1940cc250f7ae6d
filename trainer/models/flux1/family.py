"""FLUX.1's files: how they are told from others', and loaded."""

from collections.abc import Sequence

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from ...device import computes_bfloat16
from ..conditioning import Conditioning
from ..family import Family
from ..files.opened import open_file
from ..files.source import ModelError, ModelSource
from ..files.weights import Put, Ready
from ..storage.compiling import compile_blocks
from ..storage.memory import readied
from ..storage.modulation import compute_ahead
from ..storage.placement import Placement
from .attention import Attention
from .checkpointing import checkpoint_blocks
from .parts import load_vae
from .policy import FluxPolicy
from .single_file import transformer_pieces
from .text import encode_sets
from .tokens import text_tokens
from .transformer import load_transformer
from .vae import Vae


class Flux1(Family):
    """FLUX.1-dev, -schnell, -Fill-dev and -Kontext-dev."""

    planned = True

    def recognises(self, source: ModelSource) -> bool:
        try:
            if source.file:
                return bool(transformer_pieces(open_file(source.file)))
            return source.hub or FluxTransformer2DModel.__name__ in source.says("transformer")
        except ModelError:  # whoever loads it says what is wrong
            return False

    def load(self, source: ModelSource, placement: Placement, *, guidance: float) -> FluxPolicy:
        return load_flux(source, placement, guidance=guidance)

    def encode(
        self, source: ModelSource, sets: Sequence[Sequence[str]], placement: Placement, *, tokens: int | str
    ) -> list[Conditioning]:
        return encode_sets(source, sets, placement, tokens=text_tokens(tokens, source))


def load_flux(source: ModelSource, placement: Placement, *, guidance: float) -> FluxPolicy:
    """Load transformer and autoencoder, frozen, and what the model does to the sigmas.

    A single file without an autoencoder gives a policy that still needs one.

    Args:
        guidance: guidance scale fed to the guidance embedding, 3.5 for FLUX.1-dev.

    Raises:
        ModelError: a missing file, folder or part, or a model of another kind.
        MemoryPlanError: nf4 without bitsandbytes.
    """
    transformer = load_placed(source, placement)
    vae = load_vae(source, dtype=vae_dtype(placement.dtype, placement.device))
    return FluxPolicy(transformer, Vae(vae), guidance, shifts(source, transformer))


def vae_dtype(dtype: torch.dtype, device: str) -> torch.dtype:
    """What the autoencoder computes in, beside a transformer of `dtype`: float16 is too narrow for FLUX's."""
    if dtype != torch.float16:
        return dtype
    return torch.bfloat16 if computes_bfloat16(device) else torch.float32


def load_placed(source: ModelSource, placement: Placement) -> FluxTransformer2DModel:
    """The frozen transformer, each weight put where and how the placement says as it is read."""
    transformer = load_transformer(source, dtype=placement.dtype, ready=flux_readied(placement))
    if placement.checkpointing:  # it acts if gradients are asked for: rollouts keep no activations anyway
        checkpoint_blocks(transformer)
    if placement.compiled:
        compile_blocks(transformer, placement.device)
    return transformer


def flux_readied(placement: Placement) -> Ready:
    """`readied`, with the modulation computed ahead and this project's attention."""
    ready = readied(placement)

    def prepare(transformer: FluxTransformer2DModel) -> Put:
        transformer.set_attn_processor(Attention())
        compute_ahead(transformer, torch.device(placement.device))
        return ready(transformer)

    return prepare


def shifts(source: ModelSource, transformer: FluxTransformer2DModel) -> bool:
    """Whether the model's sigmas shift with the resolution."""
    if source.file:  # a file says nothing of its sigmas; of the published models, those with guidance shift them
        return transformer.config.guidance_embeds
    return source.load(FlowMatchEulerDiscreteScheduler, "scheduler").config.use_dynamic_shifting
