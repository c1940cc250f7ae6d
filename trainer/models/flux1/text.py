"""Prompt encoding: CLIP's pooled vector and T5's token embeddings, computed once, then the encoders are let go."""

from collections.abc import Sequence

import torch
from diffusers import FluxPipeline

from ...device import release
from ..conditioning import Conditioning
from ..files.source import ModelSource
from ..storage.placement import Placement
from .conditions import conditioning
from .parts import load_encoders

BATCH = 16


def encode_prompts(source: ModelSource, prompts: Sequence[str], placement: Placement, *, tokens: int) -> Conditioning:
    """Encode `prompts` like FluxPipeline does, with `tokens` T5 tokens (padding included).

    The encoders live only inside this call.
    """
    return encode_sets(source, [prompts], placement, tokens=tokens)[0]


@torch.no_grad()
def encode_sets(
    source: ModelSource, sets: Sequence[Sequence[str]], placement: Placement, *, tokens: int
) -> list[Conditioning]:
    """`encode_prompts` of several sets, each in batches of its own: what else is encoded changes no bit of a set.

    The encoders' weights are kept as the placement says; the embeddings go to the host.
    """
    device, dtype = placement.device, placement.dtype
    pipeline = FluxPipeline(scheduler=None, vae=None, transformer=None, **load_encoders(source, placement))
    encoded = []
    for prompts in sets:
        parts = []
        for start in range(0, len(prompts), BATCH):
            batch = list(prompts[start : start + BATCH])
            both = pipeline.encode_prompt(batch, prompt_2=None, device=device, max_sequence_length=tokens)[:2]
            parts.append([part.to("cpu", dtype) for part in both])
        embeddings, pooled = (torch.cat(t) for t in zip(*parts, strict=True))
        encoded.append(conditioning(embeddings, pooled))
    del pipeline
    release(device)  # the transformer's memory plan looks at what is free
    return encoded
