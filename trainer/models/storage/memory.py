"""Memory plans: in which precision the frozen weights of a model are kept, and where.

A plan is about the linear layers of a model's blocks, which are nearly all of its weights. Norms, biases, embeddings
and the layers around the blocks stay on the device that computes.

Not by diffusers' own means, which are made for inference. Layerwise casting rounds to float8 without a scale (weights
of spread 0.01 are then off by 5.7 % instead of 2.6 %), and autograd holds the widened copy of every layer until its
backward pass. Group offloading moves what is stored whole, layer by layer in the order of the forward pass: while
blocks are run again within the backward pass it brings the one behind, not the one before. A block that is run again
stops before its end, where the hook that sends it back would be: after the backward pass all of them are on the device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from ...choices import AUTO
from ...device import free_memory, streams_of
from ...errors import UserError
from ..files.weights import Put, Ready
from .eight_bits import EIGHT_BITS, quantise
from .fetching import LayerFetcher
from .frozen import FrozenLinear
from .pinned import PinnedMemory
from .placement import Placement

PRECISIONS = ("bf16", "fp8", "nf4")
ROOM = 1.25  # memory that `auto` wants to see free, in units of the weights


class MemoryPlanError(UserError):
    """A plan that this machine cannot carry out."""


@dataclass(frozen=True)
class MemoryPlan:
    """How the frozen weights of the blocks are kept."""

    precision: str = "bf16"  # "bf16" is the precision that the model computes in, whichever that is
    offload: float = 0.0  # share of the blocks whose weights stay in host memory, spread evenly over the model

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not 0 <= self.offload <= 1:
            raise ValueError(f"offload must be between 0 and 1, got {self.offload}")
        if self.precision == "nf4" and self.offload:
            raise ValueError(f"4-bit weights cannot be offloaded, got offload = {self.offload}")


class Storage:
    """Carries a plan out: on a model that is being loaded by `prepare` and `put`, on a loaded one by `store`."""

    def __init__(
        self,
        plan: MemoryPlan,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
        storage_device: torch.device | str = "cpu",
        in_8_bits: bool = False,
    ):
        self.plan = plan
        self.in_8_bits = in_8_bits  # whether 8-bit weights are multiplied as such
        self.device = torch.device(device)  # that computes
        self.dtype = dtype  # that it computes in
        # of the weights that are offloaded; if it is not pinned, copies do not run beside the computation
        self.host = PinnedMemory(torch.device(storage_device), pinned=streams_of(self.device) is not None)
        if plan.precision == "nf4":
            _bitsandbytes()

    def prepare(self, module: nn.Module) -> None:
        """Replace the linear layers that the plan is about, in place. The new ones have no weights yet (meta)."""
        fetcher = LayerFetcher(self.device) if self.plan.offload else None
        for block, offloaded in zip(blocks(module), self._offloaded(module), strict=True):
            for parent, leaf, linear in list(_linears(block)):
                if self.plan.precision != "bf16" or offloaded:
                    setattr(parent, leaf, self._replacement(linear, fetcher if offloaded else None))

    def put(self, module: nn.Module, name: str, tensor: Tensor, scale: Tensor | None = None) -> None:
        """Store one parameter or buffer of a prepared module where and how the plan says.

        Args:
            name: the full name in `module`.
            tensor: in any floating type, or int8. The plan fp8 keeps 8-bit weights of blocks as they are, with their
                scale.
            scale: of an 8-bit tensor of a scaled file, float32, [] or of each row: the value is tensor * scale.
        """
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        if leaf == "weight" and isinstance(owner, FrozenLinear):
            self._store_weight(owner, tensor, scale)
        elif leaf in owner._buffers:
            owner._buffers[leaf] = tensor.to(self.device)
        elif leaf == "weight" and type(owner).__name__ == "Linear4bit":
            # as int8 for the same reason as in frozen.py
            options = {"requires_grad": False, "quant_type": "nf4", "quant_storage": torch.int8}
            weight = type(owner.weight)(self._widened(tensor, scale), **options)
            owner.weight = weight.to(self.device)  # which makes the 4 bits
        else:
            setattr(owner, leaf, nn.Parameter(self._widened(tensor, scale).to(self.device), requires_grad=False))

    def store(self, module: nn.Module) -> None:
        """Carry the plan out on a loaded module, in place and before a LoRA is added: freeze it and put each weight in
        its place."""
        module.requires_grad_(False)
        linears = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear)}
        self.prepare(module)
        for name in list(linears):
            linear = linears.pop(name)  # let go before the next is put
            replaced = module.get_submodule(name) is not linear
            for leaf, tensor in linear.named_parameters() if replaced else ():
                self.put(module, f"{name}.{leaf}", tensor)
        module.to(self.device)  # of the rest; a FrozenLinear stays as it is

    def _offloaded(self, module: nn.Module) -> list[bool]:
        """Whether each of the blocks is offloaded: evenly spread, as many as the share says."""
        total = len(blocks(module))
        count = round(self.plan.offload * total)
        return [(i + 1) * count // total > i * count // total for i in range(total)]

    def _replacement(self, linear: nn.Linear, fetcher: LayerFetcher | None) -> nn.Linear:
        shape = (linear.in_features, linear.out_features, linear.bias is not None)
        if self.plan.precision == "nf4":
            layer = _bitsandbytes().nn.Linear4bit(*shape, compute_dtype=self.dtype, quant_type="nf4", device="meta")
            # else a CPU with avx512_bf16 packs the weight for good in the rollout, and no gradient comes through it
            layer.support_avx512bf16_for_cpu = False
            return layer
        return FrozenLinear(*shape, fetcher=fetcher, in_8_bits=self.in_8_bits)

    def _store_weight(self, layer: FrozenLinear, weight: Tensor, scale: Tensor | None) -> None:
        if self.plan.precision != "fp8" or not layer.in_block:
            weight, scale = self._widened(weight, scale), None
        elif weight.dtype not in EIGHT_BITS:
            weight, scale = quantise(self._brought(weight))
        weight = weight.to(self.device) if layer.fetcher is None else self.host.copied(weight)
        layer.store_weight(weight, scale, self.device)

    def _widened(self, tensor: Tensor, scale: Tensor | None) -> Tensor:
        if scale is not None:
            tensor = self._brought(tensor).float() * self._brought(scale)
        return tensor.to(self.dtype)

    def _brought(self, tensor: Tensor) -> Tensor:
        """To the device that computes, where what is to be done with it takes a hundredth of the CPU's time."""
        return tensor if self.device.type == "meta" else tensor.to(self.device)  # nothing would come back from meta


def blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated parts of a model, in order: the members of its outermost module lists."""
    found: list[nn.Module] = []
    for child in module.children():
        found += child if isinstance(child, nn.ModuleList) else blocks(child)
    return found


def sizes(module: nn.Module, dtype: torch.dtype) -> dict[MemoryPlan, int]:
    """Bytes that each plan's weights take on the device, from the most to the least. The module may be on meta."""
    elsewhere = [m.weight for m in module.modules() if isinstance(m, FrozenLinear) and m.fetcher is not None]
    total = sum(p.numel() for p in module.parameters()) - sum(p.numel() for p in elsewhere)
    inner = [sum(linear.weight.numel() for _, _, linear in _linears(block)) for block in blocks(module)]
    wide = dtype.itemsize
    plans = [MemoryPlan(), *(MemoryPlan("fp8", tenths / 10) for tenths in range(11))]
    around = (total - sum(inner)) * wide
    return {p: around + round(sum(inner) * (1 - p.offload) * (1 if p.precision == "fp8" else wide)) for p in plans}


def choose(needed: Mapping[MemoryPlan, int], free: int) -> MemoryPlan:
    """The first plan whose bytes are free; the last if none's are."""
    return next((plan for plan, size in needed.items() if size <= free), list(needed)[-1])


def plan_for(module: nn.Module, placement: Placement) -> MemoryPlan:
    """The plan that a placement names for a model.

    "auto" is "bf16" if ROOM x the weights are free on the device, else "fp8", else "fp8" with the smallest offload (of
    tenths, at least the placement's) that fits. A device that does not count its memory gets "bf16". What a whole
    training needs beside its weights is counted by `planning.choice`.
    """
    free, offload = free_memory(placement.device), placement.offload
    if placement.memory != AUTO:
        return MemoryPlan(placement.memory, offload)
    if free is None:
        return MemoryPlan("bf16", offload)
    needed = {p: round(ROOM * size) for p, size in sizes(module, placement.dtype).items() if p.offload >= offload}
    return choose(needed, free - placement.reserve)


def readied(placement: Placement) -> Ready:
    """How a model that is being read keeps its weights, by the plan that the placement names for it."""

    def ready(module: nn.Module) -> Put:
        plan = plan_for(module, placement)
        storage = Storage(plan, device=placement.device, dtype=placement.dtype, in_8_bits=placement.in_8_bits)
        storage.prepare(module)
        return storage.put

    return ready


def _linears(block: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Those that are not placed already, see `modulation`."""
    for parent in block.modules():
        for leaf, child in parent.named_children():
            if isinstance(child, nn.Linear) and not isinstance(child, FrozenLinear):
                yield parent, leaf, child


def _bitsandbytes() -> ModuleType:
    try:
        import bitsandbytes
    except ImportError:
        remedy = "pip install bitsandbytes, or use memory = 'fp8'"
        raise MemoryPlanError(f"memory = 'nf4': bitsandbytes is not installed; {remedy}") from None
    return bitsandbytes
