"""Frozen models that wait in host memory: where they compute, they are copies that are dropped afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...device import Device, streams_of
from .pinned import PinnedMemory

HOST = "cpu"


@dataclass
class _Weight:
    """A parameter or a buffer, and every place that it has in a model."""

    places: list[tuple[dict[str, Any], str]]  # of _parameters and _buffers
    here: Tensor
    home: Tensor | None = None  # None if it was never at home

    def put(self, tensor: Tensor) -> None:
        kept = isinstance(self.here, nn.Parameter) and not isinstance(tensor, nn.Parameter)
        self.here = nn.Parameter(tensor, requires_grad=False) if kept else tensor
        for owner, leaf in self.places:
            owner[leaf] = self.here


class Visitor:
    """Takes a model to the device and home again. What it is at home stays there, so that it is copied back once.

    It comes home into memory that the device copies from by itself, if there is such memory. Nobody else may move it.
    """

    def __init__(self, model: nn.Module):
        found: dict[int, _Weight] = {}
        for module in model.modules():
            for owner in (module._parameters, module._buffers):
                for leaf, tensor in owner.items():
                    if tensor is not None:
                        found.setdefault(id(tensor), _Weight([], tensor)).places.append((owner, leaf))
        self._weights = list(found.values())
        self._memory: PinnedMemory | None = None

    def to(self, device: Device) -> None:
        """The device may run full on the way: then some weights have arrived, and the way home is open."""
        device = torch.device(device)
        for weight in self._weights:
            if device.type == HOST and weight.here.device.type != HOST:
                weight.home = self._at_home(weight.here) if weight.home is None else weight.home
                weight.put(weight.home)
            else:
                weight.put(weight.here.to(device, non_blocking=True))

    def _at_home(self, tensor: Tensor) -> Tensor:
        if self._memory is None:
            self._memory = PinnedMemory(torch.device(HOST), pinned=streams_of(tensor.device) is not None)
        return self._memory.copied(tensor.detach())


@contextmanager
def visiting(module: nn.Module, device: torch.device) -> Iterator[None]:
    """The parameters of `module` are on `device` inside; outside they wait where they were."""
    home = [(owner, leaf, p) for owner in module.modules() for leaf, p in owner._parameters.items() if p is not None]
    try:
        for owner, leaf, p in home:  # which may run out of room half-way
            owner._parameters[leaf] = nn.Parameter(p.to(device), requires_grad=False)
        yield
    finally:
        for owner, leaf, p in home:
            owner._parameters[leaf] = p
