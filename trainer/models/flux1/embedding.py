"""What FLUX.1 makes of time, guidance and CLIP's vector: the embedding, and what its norms make of that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from ..conditioning import Conditioning
from ..storage.modulation import modulation_of, places
from .conditions import POOLED

Modulate = Callable[[Tensor, Tensor, Tensor], Tensor]  # embedding [N, dim], sigma [N], rows [N] -> [N, chunks, dim]


def modulate_of(transformer: FluxTransformer2DModel, told: Conditioning, guidance: float | None) -> Modulate | None:
    """What gives the norms of a model call theirs: out of a table, if the sigmas are known; computed then, if not.

    None if the norms compute for themselves.

    Args:
        told: of all prompts, as it waits on the host.
        guidance: None for a model without a guidance embedding.
    """
    modulation = modulation_of(transformer)
    if modulation is None:
        return None
    if not told.sigmas:
        return lambda embedding, sigma, rows: modulation.rows(embedding)

    def embed(pooled: Tensor, sigma: Tensor) -> Tensor:
        return transformer.time_text_embed(*times(sigma, guidance), pooled)

    device = transformer.x_embedder.weight.device
    grid = torch.tensor(told.sigmas, dtype=torch.float32, device=device)
    table = modulation.table(told.tensors[POOLED], grid, embed, asked=(*told.sigmas, guidance))
    return lambda embedding, sigma, rows: table[rows, places(sigma, grid)]


@contextmanager
def embedded(
    transformer: FluxTransformer2DModel, sigma: Tensor, rows: Tensor, guidance: float | None, modulate: Modulate | None
) -> Iterator[None]:
    """Inside, a call of the model embeds sigma [N] and guidance exactly, and its norms get what `modulate` gives."""

    def exactly(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (*times(sigma, guidance), inputs[-1])  # the last is CLIP's vector

    def ahead(module: nn.Module, inputs: tuple[Tensor, ...], embedding: Tensor) -> Tensor:
        return embedding if modulate is None else modulate(embedding, sigma, rows)

    hooks = [
        transformer.time_text_embed.register_forward_pre_hook(exactly),
        transformer.time_text_embed.register_forward_hook(ahead),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def times(sigma: Tensor, guidance: float | None) -> list[Tensor]:
    """What the embedding of the time gets: sigma [N] and guidance in float32, times 1000, as in ComfyUI.

    diffusers rounds both to the model's precision beforehand: of bfloat16's 8 bits, sigma = 0.9 becomes 0.8984.
    """
    both = [sigma] if guidance is None else [sigma, torch.full_like(sigma, guidance)]
    return [1000 * t.float() for t in both]
