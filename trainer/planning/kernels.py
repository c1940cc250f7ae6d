"""What a computation asks of a card: each kernel's arithmetic, and the bytes that it reads and writes.

A kernel is an operation that torch dispatches, backward passes and what they compute again included; views and
allocations are none. Its bytes are those of the tensors it is given and of those it makes, each once, which is what a
kernel with a perfect cache would move. FLOP are known of matrix products, convolutions and attention, by torch's own
formulas (`torch.utils.flop_counter`), the rest counts by its bytes alone.

A fused kernel of the project's own counts as one if it is a `torch.library.custom_op` that `meta` tensors reach too
(by `register_fake`); its arithmetic is said by `torch.utils.flop_counter.register_flop_formula`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

PRODUCT, THIN, ATTENTION, ELEMENTWISE, CAST, COPY, FETCH = KINDS = (
    "products",
    "thin products",  # a LoRA's, and those of a single row: their bytes take longer than their arithmetic
    "attention",
    "elementwise",  # sums, norms and the optimiser's among them
    "casts",
    "copies",
    "fetched",  # from the host
)
FORWARD, PAIRS = "forward", "pairs"  # one micro-batch of the rollout, and of the update with its backward pass
RIDGE = 128  # FLOP a byte below which a product is thin: cards do about as many in the time of a byte
COPYING = frozenset("copy_ _to_copy widen clone cat stack repeat constant_pad_nd slice_backward".split())
GATHERING = frozenset({"index", "index_select", "embedding", "gather"})  # which read what they give, not the whole
TRANSFERS = frozenset({"copy_", "_to_copy"})
OVERWRITING = frozenset({"copy_", "fill_", "zero_"})


class Kernel(NamedTuple):
    """One kernel."""

    kind: str  # of KINDS
    width: int  # bytes of a number that it computes with, by its first tensor: which arithmetic the card takes
    flop: int
    bytes: int  # read and written


Work = Counter[Kernel]  # how often each


class Kernels:
    """Counts kernels under names: `see` each operation inside of `counting`."""

    def __init__(self) -> None:
        self.work: defaultdict[str, Work] = defaultdict(Counter)
        self._open: list[tuple[str, int]] = []

    @contextmanager
    def counting(self, name: str, times: int = 1) -> Iterator[None]:
        """Inside, kernels count once for `name`, and `times` times for the names around it."""
        self._open.append((name, times))
        try:
            yield
        finally:
            self._open.pop()

    def see(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any, on_host: Callable[[Tensor], bool]) -> None:
        """Count an operation that was called.

        Args:
            on_host: whether a tensor is in the host's memory; what happens there alone is no kernel.
        """
        if self._open and (kernel := kernel_of(func, args, kwargs, out, on_host)):
            self._add(kernel)

    def fetched(self, tensor: Tensor) -> None:
        """Count a copy from the host that no operation makes."""
        self._add(Kernel(FETCH, tensor.itemsize, 0, tensor.nbytes))

    def _add(self, kernel: Kernel) -> None:
        times = 1
        for name, repeated in reversed(self._open):
            self.work[name][kernel] += times
            times *= repeated


def kernel_of(
    func: Any, args: Any, kwargs: Mapping[str, Any], out: Any, on_host: Callable[[Tensor], bool]
) -> Kernel | None:
    """The kernel of an operation; None if there is none, as for views, allocations and what the host does."""
    name = func.overloadpacket.__name__
    given, changed = tensors([*args, *kwargs.values()]), written_in_place(func, args, kwargs)
    made = changed or new_ones(tensors([out]), given)
    if not made or "empty" in name or all(map(on_host, made)):
        return None
    written = sum(map(size_of, made))
    if name in TRANSFERS and on_host(given[-1]):
        return Kernel(FETCH, given[0].itemsize, 0, written)
    read = 0 if name in OVERWRITING else sum(map(size_of, changed))
    known = set(map(id, changed))
    others = [size_of(tensor) for tensor in given if id(tensor) not in known]
    read += sum(min(size, written) for size in others) if name in GATHERING else sum(others)
    formula = _formula(func.overloadpacket)
    flop = int(formula(*args, **kwargs, out_val=out)) if formula else 0
    width = (given or made)[0].itemsize
    return Kernel(_kind(name, flop, read + written, given, made), width, flop, read + written)


def _kind(name: str, flop: int, moved: int, given: list[Tensor], made: list[Tensor]) -> str:
    if "attention" in name:
        return ATTENTION
    if flop:
        return PRODUCT if flop >= RIDGE * moved else THIN
    if name in COPYING:
        return COPY if given[-1].dtype == made[0].dtype else CAST
    return ELEMENTWISE


@lru_cache(None)
def _formula(packet: Any) -> Callable[..., Any] | None:
    """FLOP of an operation; one in place, such as `addmm_`, has those of the plain one."""
    plain = getattr(torch.ops.aten, packet.__name__.rstrip("_"), None)
    return flop_registry.get(packet) or flop_registry.get(plain)


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """Those among an operation's arguments or results, lists of them included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(value)
    return found


def new_ones(made: list[Tensor], given: list[Tensor]) -> list[Tensor]:
    """Those of `made` that are no views of `given`."""
    known = {tensor.untyped_storage()._cdata for tensor in given}
    return [tensor for tensor in made if tensor.untyped_storage()._cdata not in known]


def written_in_place(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    places = _written(func)
    return tensors(args[i] if i < len(args) else kwargs.get(name) for i, name in places)


@lru_cache(None)
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Place and name of each argument that the operation writes to."""
    arguments = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)


def size_of(tensor: Tensor) -> int:
    """Bytes of its elements, those that it repeats by a stride of 0 once."""
    size = tensor.itemsize
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride else min(length, 1)
    return size
