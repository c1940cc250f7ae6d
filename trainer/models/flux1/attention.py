"""FLUX.1's attention: as diffusers computes it, with one kernel for what happens to queries and keys before."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from torch import Tensor, nn

from .rotary import has_kernel, rotated

Rotary = tuple[Tensor, Tensor]  # cosines and sines, float32 [tokens, width of a head]


class Attention(FluxAttnProcessor):
    """diffusers' own where the kernel does not work, a norm is trained, or blocks are compiled, which fuses as much."""

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        text = encoder_hidden_states
        if image_rotary_emb is None or not self._in_one(attn, hidden_states):
            return super().__call__(attn, hidden_states, text, attention_mask, image_rotary_emb)
        query, key, value = _projected(attn, hidden_states, text, image_rotary_emb)
        y = dispatch_attention_fn(query, key, value, attn_mask=attention_mask, backend=self._attention_backend)
        y = y.flatten(2, 3)  # [N, tokens, heads * width]
        if text is None:
            return y
        of_text, of_picture = y.split_with_sizes([text.shape[1], hidden_states.shape[1]], 1)
        of_picture = attn.to_out[1](attn.to_out[0](of_picture.contiguous()))
        return of_picture, attn.to_add_out(of_text.contiguous())

    def has_kernel(self, device: torch.device) -> bool:
        return has_kernel(device)

    def _in_one(self, attn: FluxAttention, x: Tensor) -> bool:
        trained = any(norm.weight.requires_grad for norm in attn.children() if isinstance(norm, nn.RMSNorm))
        return not trained and not torch.compiler.is_compiling() and self.has_kernel(x.device)


class _Side(NamedTuple):
    """Text or picture, and the layers that it goes through."""

    tokens: Tensor  # [N, tokens, channels]
    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    norm_q: nn.RMSNorm
    norm_k: nn.RMSNorm


def _projected(attn: FluxAttention, x: Tensor, text: Tensor | None, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, [N, tokens, heads, width] each, the text first."""
    sides = [_Side(x, attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k)]
    if text is not None:
        layers = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj, attn.norm_added_q, attn.norm_added_k
        sides.insert(0, _Side(text, *layers))

    def parts(layers: Iterable[nn.Module]) -> list[Tensor]:
        made = [layer(side.tokens) for layer, side in zip(layers, sides, strict=True)]
        return [y.unflatten(-1, (-1, attn.head_dim)) for y in made]

    def placed(layers: Iterable[nn.Module], norms: Iterable[nn.RMSNorm]) -> Tensor:
        return rotated(parts(layers), [norm.weight for norm in norms], *rotary, attn.norm_q.eps)  # one eps for all

    query = placed((side.to_q for side in sides), (side.norm_q for side in sides))
    key = placed((side.to_k for side in sides), (side.norm_k for side in sides))
    values = parts(side.to_v for side in sides)
    return query, key, torch.cat(values, 1) if len(values) > 1 else values[0]
