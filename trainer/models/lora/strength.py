"""A LoRA that counts more or less than it was trained to."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .attach import lora_layers


@contextmanager
def at_strength(network: nn.Module, adapter: str, strength: float) -> Iterator[None]:
    """Inside, W + strength * scale * B A: what ComfyUI's Load LoRA makes of it at that strength."""
    layers = [layer for layer in lora_layers(network).values() if adapter in layer.scaling]
    scales = [layer.scaling[adapter] for layer in layers]
    try:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[adapter] = scale * strength
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[adapter] = scale
