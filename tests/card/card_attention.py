"""Attention on the card: the CPU's own fused kernel, so that its numbers are the CPU's and no N x N matrix is held."""

import torch

aten = torch.ops.aten
FUSED = 1  # of torch's SDPBackend


def attention(query, key, value, mask=None, dropout=0.0, causal=False, *, scale=None, enable_gqa=False):
    """scaled_dot_product_attention by the kernel that the CPU would choose; torch asks no backend in Python."""
    numbers = (getattr(x, "raw", x) for x in (query, key, value, mask))
    options = {"scale": scale, "enable_gqa": enable_gqa}
    if enable_gqa or torch._fused_sdp_choice(*numbers, dropout, causal, **options) != FUSED:
        return aten._scaled_dot_product_attention_math.default(
            query, key, value, mask, dropout, causal, None, **options
        )[0]
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    fused = aten._scaled_dot_product_flash_attention_for_cpu.default
    return fused(query, key, value, dropout, causal, attn_mask=mask, scale=scale)[0]
