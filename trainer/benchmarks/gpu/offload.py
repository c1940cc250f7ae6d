"""Checks 2 and 7: copies beside the computation come in time, and cost little."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...device import streams_of
from ...engine.drawing import policy_velocity
from ...engine.state import Setup
from ...models.storage.fetching import LayerFetcher
from ...models.storage.frozen import FrozenLinear
from .bench import Bench, gradient, latents
from .card import Card
from .counts import Case
from .results import Bounds, Skipped, Value

POISON = 0xFF  # makes NaN of bfloat16, float16, float32 and float8_e4m3fn
LONGEST = 2_000_000  # cycles that a stream sleeps: about a millisecond
HIDDEN = "hidden at micro-batch {}"


@dataclass(frozen=True)
class Plain:
    """The slow and certain way: a copy that the host waits for."""

    device: torch.device

    def fetch(self, weight: Tensor, *, backward: bool) -> Tensor:
        return weight.to(self.device, copy=True)

    def settle(self) -> None:
        """Nothing is on its way."""


@dataclass(frozen=True)
class Shaken:
    """The fetcher under test, with random sleeps in both streams and NaN in the memory that is free."""

    fetcher: LayerFetcher
    card: Card
    lots: random.Random

    def fetch(self, weight: Tensor, *, backward: bool) -> Tensor:
        self._sleep(nullcontext())
        # the memory that the last layer's copy has left: a copy that does not wait for this is overwritten
        torch.empty_like(weight, device=self.card.device).view(torch.uint8).fill_(POISON)
        if self.fetcher.stream is not None:
            self._sleep(self.card.module.stream(self.fetcher.stream))
        return self.fetcher.fetch(weight, backward=backward)

    def settle(self) -> None:
        self.fetcher.settle()

    def _sleep(self, where: AbstractContextManager[Any]) -> None:
        with where:
            if self.lots.random() < 0.3:
                self.card.sleep(self.lots.randrange(LONGEST))


def races(bench: Bench) -> Iterator[Value]:
    """Every pass must give the same bits as weights that are copied while the host waits."""
    for memory in ("bf16", "fp8"):
        setup = bench.few(Case(memory, 1.0, bench.sizes.narrow_pixels, 2))
        layers = [m for m in setup.policy.network.modules() if isinstance(m, FrozenLinear)]
        fetchers = {layer: layer.fetcher for layer in layers if isinstance(layer.fetcher, LayerFetcher)}
        for layer in fetchers:
            layer.fetcher = Plain(bench.card.device)
        v, gradients = passed(setup)
        yield Value(
            f"{memory}: finite", "yes" if v.isfinite().all() and gradients.isfinite().all() else "no", equals="yes"
        )
        lots = random.Random(0)
        for layer, fetcher in fetchers.items():
            layer.fetcher = Shaken(fetcher, bench.card, lots)
        again = [passed(setup) for _ in range(bench.sizes.passes)]
        off = [sum(not torch.equal(found[i], exact) for found in again) for i, exact in enumerate((v, gradients))]
        yield Value(f"{memory}: passes with another velocity", float(off[0]), f"of {len(again)}", high=0)
        yield Value(f"{memory}: passes with another gradient", float(off[1]), f"of {len(again)}", high=0)
        del setup, layers, fetchers
        bench.card.release()


def passed(setup: Setup) -> tuple[Tensor, Tensor]:
    """(velocity, the LoRA's gradient) of one micro-batch, on the CPU.

    Attention is plain mathematics: fused kernels add up gradients in an order that changes.
    """
    x, sigma, rows = latents(setup, setup.micro_batch.size)
    velocity = policy_velocity(setup, [0], setup.micro_batch.size)
    with sdpa_kernel(SDPBackend.MATH):
        v = velocity(x, sigma, rows)
        v.backward(x)
    found = gradient(setup)
    for parameter in setup.lora.values():
        parameter.grad = None
    return v.detach().cpu(), found


def overlap(bench: Bench) -> Iterator[Value]:
    """Which share of the copying is hidden under the computation: forward passes of 8-bit weights, here and fetched."""
    if streams_of(bench.card.device) is None:
        raise Skipped("this device copies while it does nothing else")
    seconds: dict[float, dict[int, float]] = {}
    for offload in (0.0, 1.0):
        setup = bench.full(Case("fp8", offload, bench.sizes.pixels, 4))
        seconds[offload] = {size: forward(bench, setup, size) for size in bench.sizes.micro_batches}
    copying = copies(bench, setup)
    yield Value("copies alone", copying, "s")
    for size in bench.sizes.micro_batches:
        expected: Bounds = bench.card.on_h200(0.65, 1.05) if size == 4 else {}
        share = hidden(copying, seconds[0.0][size], seconds[1.0][size])
        yield Value(HIDDEN.format(size), share, **(expected or Bounds(low=0.2 if size >= 4 else None)))


def hidden(copying: float, resident: float, fetched: float) -> float:
    """The share of `copying` seconds that a forward pass with fetched weights does not last longer for."""
    return 1 - (fetched - resident) / copying


@torch.no_grad()
def forward(bench: Bench, setup: Setup, size: int, repeats: int = 2) -> float:
    """Seconds of a forward pass of `size` candidates."""
    arguments, velocity = latents(setup, size), policy_velocity(setup, [0], size)
    velocity(*arguments)
    return bench.card.seconds(lambda: velocity(*arguments), repeats)


def copies(bench: Bench, setup: Setup) -> float:
    """Seconds in which every offloaded weight is copied to the device, one after the other."""
    layers = [m for m in setup.policy.network.modules() if isinstance(m, FrozenLinear) and m.fetcher]

    def copy() -> None:
        for layer in layers:
            torch.empty_like(layer.weight, device=bench.card.device).copy_(layer.weight, non_blocking=True)

    copy()
    return bench.card.seconds(copy)
