"""Modulation computed ahead: what adaptive norms make of time, guidance and prompt, once for all candidates.

The linear layers of FLUX.1's adaptive norms are 27 % of its weights (3.2 of 11.9 G), and all that they see is a vector
of (prompt, sigma, guidance). Their weights wait in host memory; a table of what they say, a row for each prompt and
sigma, is made once an iteration, and each model call takes its rows out of it, in place of the vector.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle
from torch import Tensor, nn

from .fetching import LayerFetcher
from .frozen import Fetcher, FrozenLinear

NORMS = (AdaLayerNormZero, AdaLayerNormZeroSingle, AdaLayerNormContinuous)


class Modulator(FrozenLinear):
    """The linear layer of an adaptive norm: takes its own chunks [N, out] of all that were computed before."""

    places: Tensor  # of its chunks among all, [chunks]

    def __init__(self, linear: nn.Linear, first: int, owner: "Modulation", device: torch.device):
        shape = linear.in_features, linear.out_features, linear.bias is not None
        super().__init__(*shape, fetcher=owner.fetcher)
        self.owner = owner
        self.first, self.chunks = first, linear.out_features // linear.in_features
        # a tensor, as a number would be compiled in: each block would be compiled anew
        self.register_buffer("places", torch.arange(first, first + self.chunks, device=device), persistent=False)

    def forward(self, modulation: Tensor) -> Tensor:
        return modulation.index_select(1, self.places).flatten(1)

    def ahead(self, x: Tensor) -> Tensor:
        """x [R, dim] W^T + b as chunks, [R, chunks, dim]."""
        return F.linear(x, self.widened(x.dtype, backward=False), self.bias).unflatten(1, (self.chunks, -1))

    def settle(self) -> None:
        super().settle()
        self.owner.forget()


class Modulation:
    """All modulators of a network, and the table that was made last."""

    def __init__(self, fetcher: Fetcher | None):
        self.fetcher = fetcher
        self.layers: list[Modulator] = []
        self._table: Tensor | None = None
        self._asked: Hashable = None
        self._told = torch.empty(0)

    @torch.no_grad()
    def rows(self, embedding: Tensor) -> Tensor:
        """What the norms make of vectors [R, dim]: [R, chunks, dim]."""
        x = F.silu(embedding)
        rows = x.new_empty(len(x), sum(layer.chunks for layer in self.layers), x.shape[1])
        for layer in self.layers:
            rows[:, layer.first : layer.first + layer.chunks] = layer.ahead(x)
        if self.fetcher is not None:
            self.fetcher.settle()  # else the first weights would wait on the device for the next time
        return rows

    @torch.no_grad()
    def table(
        self, told: Tensor, sigmas: Tensor, embed: Callable[[Tensor, Tensor], Tensor], *, asked: Hashable
    ) -> Tensor:
        """`rows` of each prompt at each sigma, and a row of NaN for any other: [P, S + 1, chunks, dim].

        The last table is given again if the question is the same.

        Args:
            told: what the network is told of P prompts, [P, ...]. On the host it is compared without a wait.
            sigmas: [S], on the device.
            embed: (told [P S, ...], sigma [P S]) -> vectors [P S, dim].
            asked: whatever else the vectors hang on.
        """
        if self._table is None or self._asked != asked or not _same(self._told, told):
            self.forget()
            each = told.to(sigmas.device).repeat_interleave(len(sigmas), 0)
            rows = self.rows(embed(each, sigmas.repeat(len(told)))).unflatten(0, (len(told), len(sigmas)))
            self._table = torch.cat([rows, torch.full_like(rows[:, :1], torch.nan)], 1)
            self._asked, self._told = asked, told
        return self._table

    def forget(self) -> None:
        self._table = None


def places(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """Where sigma [N] stands among `sigmas` [S], int64 [N]; S if it is none of them. Nothing waits for the device."""
    same = sigma[:, None] == sigmas
    return torch.where(same.any(1), same.int().argmax(1), len(sigmas))


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors on the host are equal; elsewhere nobody asks."""
    return a.device.type == b.device.type == "cpu" and torch.equal(a, b)


def compute_ahead(network: nn.Module, device: torch.device) -> Modulation:
    """Exchange the linear layers of the adaptive norms of a network without weights (meta), in place.

    Whoever fills it puts their weights where `fetcher` brings them from: in host memory, beside a device of its own.
    """
    modulation = Modulation(None if device.type == "cpu" else LayerFetcher(device))
    first = 0
    for norm in _norms(network):
        layer = Modulator(norm.linear, first, modulation, device)
        layer.in_block = not isinstance(norm, AdaLayerNormContinuous)  # the last norm stands behind the blocks
        norm.silu, norm.linear = nn.Identity(), layer
        modulation.layers.append(layer)
        first += layer.chunks
    return modulation


def modulation_of(network: nn.Module) -> Modulation | None:
    """None if the norms compute for themselves."""
    return next((layer.owner for layer in modulators(network)), None)


def modulators(network: nn.Module) -> Iterator[Modulator]:
    return (module for module in network.modules() if isinstance(module, Modulator))


def compute_again(network: nn.Module) -> None:
    """Let the norms compute for themselves, with their weights on the device: a LoRA is to be trained on them."""
    for norm in _norms(network):
        if isinstance(norm.linear, Modulator):
            norm.silu, norm.linear = nn.SiLU(), _resident(norm.linear)


def _resident(layer: Modulator) -> nn.Linear:
    device = layer.places.device
    weight = layer.weight.detach().to(device, copy=True)
    shape = layer.in_features, layer.out_features, layer.bias is not None
    if weight.dtype == torch.int8:
        frozen = FrozenLinear(*shape)
        frozen.store_weight(weight if layer.float8 is None else weight.view(layer.float8), layer.scale, device)
        frozen.bias = layer.bias
        return frozen
    linear = nn.Linear(*shape, device="meta")
    linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return linear


def _norms(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, NORMS)]
