"""A loaded model on its way: to host memory while nobody uses it, and back to the device that computes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .frozen import FrozenLinear


def move(module: nn.Module, device: torch.device) -> None:
    """Take a model with its LoRAs to `device`; each parameter stays the object that an optimiser knows.

    What was offloaded stays in host memory, and no copy of it is left on the device. If the way breaks off, because a
    memory is full, some tensors have arrived and some have not: moving back is always possible.
    """
    settle(module)
    module.to(device)
    for layer in _frozen(module):  # which `.to()` does not reach
        layer.carry(device)


def settle(module: nn.Module) -> None:
    """Nobody uses the model for a while: no copy of a weight is on its way, into memory that may become another's."""
    for layer in _frozen(module):
        layer.settle()


def bytes_on(module: nn.Module, device: torch.device) -> int:
    """What a model's parameters and buffers take of `device`."""
    return sum(tensor.nbytes for tensor in _tensors(module) if tensor.device == device)


def _frozen(module: nn.Module) -> list[FrozenLinear]:
    return [layer for layer in module.modules() if isinstance(layer, FrozenLinear)]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
