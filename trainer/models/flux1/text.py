"""Prompt encoding: CLIP's pooled vector and T5's token embeddings, computed once, then the encoders are let go."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import FluxPipeline
from torch import Tensor

from ...device import release
from ..files.source import ModelSource
from .parts import load_encoders

BATCH = 16


@dataclass(frozen=True)
class Conditioning:
    """Embeddings of n prompts, in the model's precision. They wait on the host; a policy takes those that it needs."""

    embeddings: Tensor  # T5, [n, tokens, joint_attention_dim]
    pooled: Tensor  # CLIP, [n, pooled_projection_dim]
    fill: Tensor | None = None  # what FLUX.1-Fill sees in each token of x, [n, tokens of the picture, 320]
    reference: Tensor | None = None  # what FLUX.1-Kontext sees in tokens beside those of x, [n, tokens, 64]

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> "Conditioning":
        fill, reference = (None if seen is None else seen[rows] for seen in (self.fill, self.reference))
        return Conditioning(self.embeddings[rows], self.pooled[rows], fill, reference)

    def to(self, device: torch.device) -> "Conditioning":
        parts = self.embeddings, self.pooled, self.fill, self.reference
        return Conditioning(*(None if part is None else part.to(device) for part in parts))


def encode_prompts(
    source: ModelSource, prompts: Sequence[str], *, tokens: int, device: str, dtype: torch.dtype
) -> Conditioning:
    """Encode `prompts` like FluxPipeline does, with `tokens` T5 tokens (padding included; 512 for FLUX.1-dev).

    The encoders live only inside this call.
    """
    return encode_sets(source, [prompts], tokens=tokens, device=device, dtype=dtype)[0]


@torch.no_grad()
def encode_sets(
    source: ModelSource,
    sets: Sequence[Sequence[str]],
    *,
    tokens: int,
    device: str,
    dtype: torch.dtype,
    memory: str = "bf16",
    offload: float = 0.0,
    reserve: int = 0,
) -> list[Conditioning]:
    """`encode_prompts` of several sets, each in batches of its own: what else is encoded changes no bit of a set.

    The encoders' weights are kept as the memory plan says, see `plan_for`; the embeddings go to the host.
    """

    pipeline = FluxPipeline(
        scheduler=None,
        vae=None,
        transformer=None,
        **load_encoders(source, memory, offload, dtype=dtype, device=device, reserve=reserve),
    )
    encoded = []
    for prompts in sets:
        parts = []
        for start in range(0, len(prompts), BATCH):
            batch = list(prompts[start : start + BATCH])
            both = pipeline.encode_prompt(batch, prompt_2=None, device=device, max_sequence_length=tokens)[:2]
            parts.append([part.to("cpu", dtype) for part in both])
        embeddings, pooled = (torch.cat(t) for t in zip(*parts, strict=True))
        encoded.append(Conditioning(embeddings, pooled))
    del pipeline
    release(device)  # the transformer's memory plan looks at what is free
    return encoded
