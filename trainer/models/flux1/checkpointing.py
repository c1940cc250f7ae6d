"""Blocks of which the update keeps the inputs alone: the backward pass computes them again.

A block's branches end in `residual + gate * y`, with y of a linear layer. The forward pass has given the sums; the
second pass is there for what autograd keeps, and y it keeps only if the gate is trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..lora.fused import FusedLora
from ..storage.attention import sound_attention
from ..storage.frozen import FrozenLinear

LAST = {FluxTransformerBlock: ("ff.net.2", "ff_context.net.2"), FluxSingleTransformerBlock: ("proj_out",)}
GATES = ("norm", "norm1", "norm1_context")  # what makes them


def checkpoint_blocks(transformer: FluxTransformer2DModel) -> None:
    """If gradients are asked for, keep each block's inputs alone and compute it again in the backward pass."""
    transformer.enable_gradient_checkpointing(_checkpointed)


def _checkpointed(block: nn.Module, x: Tensor, context: Tensor, modulation: Tensor, *others: Any) -> tuple[Tensor, ...]:
    spared, inputs = spared_in(block, x, modulation), (x, context, modulation, *others)
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), second_pass(spared)))


def spared_in(block: nn.Module, x: Tensor, modulation: Tensor) -> list[FusedLora | FrozenLinear]:
    """The layers whose products a second pass of a block need not compute."""
    return [] if _needs_all(block, x, modulation) else _last_products(block)


def _needs_all(block: nn.Module, x: Tensor, modulation: Tensor) -> bool:
    """Whether the last products are needed: the gates are trained, or diffusers clips the sums, as it does in float16.

    A compiled block computes them too: as another graph it would be compiled once more.
    """
    makers = [child for name, child in block.named_children() if name in GATES]
    trained = modulation.requires_grad or any(p.requires_grad for maker in makers for p in maker.parameters())
    return trained or x.dtype == torch.float16 or block._compiled_call_impl is not None


def _last_products(block: nn.Module) -> list[FusedLora | FrozenLinear]:
    layers = [block.get_submodule(name) for name in LAST[type(block)]]
    return [layer for layer in layers if isinstance(layer, FusedLora | FrozenLinear)]


@contextmanager
def second_pass(spared: list[FusedLora | FrozenLinear]) -> Iterator[None]:
    """Inside, a block is computed again for what autograd keeps of it."""
    for layer in spared:
        layer.spared = True
    try:
        with sound_attention():
            yield
    finally:
        for layer in spared:
            layer.spared = False
