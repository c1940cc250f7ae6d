"""Prompt encoding: CLIP's pooled vector and T5's token embeddings, computed once, then the encoders are let go."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import FluxPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from .source import ModelSource

BATCH = 16


@dataclass(frozen=True)
class Conditioning:
    """Embeddings of n prompts, in the model's precision, on its device."""

    embeddings: Tensor  # T5, [n, tokens, joint_attention_dim]
    pooled: Tensor  # CLIP, [n, pooled_projection_dim]
    fill: Tensor | None = None  # what FLUX.1-Fill sees beside x, [n, tokens of the picture, 320]

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> "Conditioning":
        fill = None if self.fill is None else self.fill[rows]
        return Conditioning(self.embeddings[rows], self.pooled[rows], fill)


def encode_prompts(
    source: ModelSource, prompts: Sequence[str], *, tokens: int, device: str, dtype: torch.dtype
) -> Conditioning:
    """Encode `prompts` like FluxPipeline does, with `tokens` T5 tokens (padding included; 512 for FLUX.1-dev).

    The encoders live only inside this call.
    """
    return encode_sets(source, [prompts], tokens=tokens, device=device, dtype=dtype)[0]


@torch.no_grad()
def encode_sets(
    source: ModelSource, sets: Sequence[Sequence[str]], *, tokens: int, device: str, dtype: torch.dtype
) -> list[Conditioning]:
    """`encode_prompts` of several sets, each in batches of its own: what else is encoded changes no bit of a set."""
    pipeline = FluxPipeline(
        scheduler=None,
        vae=None,
        transformer=None,
        text_encoder=source.load_model(CLIPTextModel, "text_encoder", torch_dtype=dtype).eval().to(device),
        tokenizer=source.load(CLIPTokenizer, "tokenizer"),
        text_encoder_2=source.load_model(T5EncoderModel, "text_encoder_2", torch_dtype=dtype).eval().to(device),
        tokenizer_2=source.load(T5TokenizerFast, "tokenizer_2"),
    )
    encoded = []
    for prompts in sets:
        parts = []
        for start in range(0, len(prompts), BATCH):
            batch = list(prompts[start : start + BATCH])
            parts.append(pipeline.encode_prompt(batch, prompt_2=None, device=device, max_sequence_length=tokens)[:2])
        embeddings, pooled = (torch.cat(t) for t in zip(*parts, strict=True))
        encoded.append(Conditioning(embeddings.to(dtype), pooled.to(dtype)))
    return encoded
