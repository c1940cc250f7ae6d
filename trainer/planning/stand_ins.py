"""What takes a part of a run's place on the `meta` device, where a model call computes nothing and a copy is none."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor, nn

from ..choices import AUTO
from ..device import kernels_by_triton, pick_device
from ..models.conditioning import Conditioning
from ..models.family import Place
from ..models.flux1.attention import Attention
from ..models.flux1.geometry import Geometry
from ..models.flux1.kept import Inputs, Kept, seen
from ..models.flux1.policy import FluxPolicy
from ..models.flux1.vae import Vae
from ..models.storage.fetching import LayerFetcher
from ..models.storage.memory import MemoryPlan, Storage, blocks
from ..models.storage.pinned import PinnedMemory
from ..stages.rollout import BatchVelocity
from .kernels import FORWARD, Kernels
from .models import META
from .tracker import DEVICE, HOST, MemoryTracker
from .widening import PlannedLinear


@dataclass
class PlannedPolicy(FluxPolicy):
    """A policy that passes some of its calls through the model: the others would need the same."""

    kernels: Kernels = field(default_factory=Kernels)  # where the real call counts for all of them
    only: int | None = None  # the call of each velocity that is real; None: all are
    calls: int = 1  # of each velocity, for which the real one counts

    def keep(self, wanted: Collection[Place]) -> Kept | None:
        return PlannedKept(self.network, wanted) if super().keep(wanted) else None

    def velocity(self, conditioning: Conditioning, geometry: Geometry) -> BatchVelocity:
        evaluate, calls = super().velocity(conditioning, geometry), count()

        def velocity(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
            if self.only is None:
                return evaluate(x, sigma, rows)
            if next(calls) != self.only:
                return torch.empty_like(x)
            with self.kernels.counting(FORWARD, times=self.calls):
                return evaluate(x, sigma, rows)

        return velocity


class PlannedKept(Kept):
    """All that is wanted, as soon as one call is real: by then the others' has been kept."""

    @contextmanager
    def filling(self, call: int, first: int, size: int) -> Iterator[None]:
        def keep(x: Tensor, context: Tensor) -> None:
            if not self._inputs:
                shapes, count = (x[0], context[0]), len(blocks(self.transformer)) + 1
                self._inputs = {
                    place: [Inputs(*map(torch.empty_like, shapes)) for _ in range(count)] for place in self.wanted
                }

        with seen(self.transformer, keep):
            yield


class PlannedAttention(Attention):
    """Attention on meta as on the device that a setting names; a machine with none but the CPU plans for one that
    Triton compiles for."""

    def __init__(self, device: str):
        super().__init__()
        device = pick_device(AUTO) if device == AUTO else device
        self.works = device == "cpu" or kernels_by_triton(device)

    def has_kernel(self, device: torch.device) -> bool:
        return self.works


class PlannedVae(Vae):
    """The autoencoder, whose weights wait on the host and are copied to the device for a phase.

    Its largest moment is within a use, so that a copy for each use counts the same.
    """

    def decode(self, z: Tensor) -> Tensor:
        with self._copied():
            return super().decode(z)

    def encode(self, images: Tensor) -> Tensor:
        with self._copied():
            return super().encode(images)

    @contextmanager
    def _copied(self) -> Iterator[None]:
        copies = [torch.empty_like(parameter).copy_(parameter) for parameter in self.vae.parameters()]
        yield
        del copies


class PlannedFetcher:
    """Offload once the order of the layers is known: what is copied ahead takes all the bytes that it may."""

    def __init__(self, offloaded: int, tracker: MemoryTracker):
        self._ahead = torch.empty(min(LayerFetcher.ahead, offloaded), dtype=torch.uint8, device=META)
        tracker.place([self._ahead], DEVICE)

    def fetch(self, weight: Tensor, *, backward: bool) -> Tensor:
        return torch.empty_like(weight).copy_(weight)

    def settle(self) -> None:
        pass


class PlannedMemory(PinnedMemory):
    """Host memory that is on meta."""

    def __init__(self, tracker: MemoryTracker):
        super().__init__(META, pinned=False)
        self.tracker = tracker

    def _allocate(self, size: int) -> Tensor:
        with self.tracker.making(HOST):
            return super()._allocate(size)


class PlannedStorage(Storage):
    """Host and device are both meta, where a copy from one to the other would be none. The layers are PlannedLinear."""

    def __init__(self, plan: MemoryPlan, dtype: torch.dtype, tracker: MemoryTracker, *, in_8_bits: bool):
        super().__init__(plan, device=META, dtype=dtype, storage_device=META, in_8_bits=in_8_bits)
        self.host = PlannedMemory(tracker)

    def _brought(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor).copy_(tensor)

    def _replacement(self, linear: nn.Linear, fetcher: LayerFetcher | None) -> nn.Linear:
        shape = (linear.in_features, linear.out_features, linear.bias is not None)
        return PlannedLinear(*shape, fetcher=fetcher, in_8_bits=self.in_8_bits)
