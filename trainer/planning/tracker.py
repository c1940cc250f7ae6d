"""Counting live memory, and kernels: a dispatch mode that follows storages from their making to their end.

It counts on any device, `meta` included, where tensors have sizes and no data. torch's own MemTracker wants a gradient
of every parameter and fails on frozen ones.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from .kernels import Kernels

DEVICE, HOST = "device", "host"
FLASH_WIDTH = 256  # numbers an attention head that the flash kernel takes at most


class MemoryTracker(TorchDispatchMode):
    """Bytes of live storages, now and at their peak, on the compute device and in host memory.

    A storage counts once, however many views share it, from the first operation that returns it until it is freed.
    What was made before, such as weights, is announced with `place`.

    Args:
        compute: type of the device that counts as DEVICE, such as "meta" or "cuda"; others are HOST.
    """

    def __init__(self, compute: str = "meta"):
        super().__init__()
        self.compute = compute
        self.live = {DEVICE: 0, HOST: 0}
        self.peak = {DEVICE: 0, HOST: 0}
        self.kernels = Kernels()  # what it counts is said there
        self._made: str | None = None  # where new storages count, if not by their device
        self._known: dict[int, tuple[weakref.ref[UntypedStorage], int, str]] = {}  # address -> storage, bytes, where

    def place(self, tensors: Iterable[Tensor], where: str) -> None:
        """Count the storages of these tensors as `where`, from now on: those that come to the device are fetched."""
        for tensor in tensors:
            if where == DEVICE and self.on_host(tensor):
                self.kernels.fetched(tensor)
            self._count(tensor.untyped_storage(), where)

    @contextmanager
    def making(self, where: str) -> Iterator[None]:
        """Inside, new storages count as `where`, whatever their device."""
        self._made = where
        try:
            yield
        finally:
            self._made = None

    def restart(self) -> None:
        """Begin a new peak at what is live now."""
        self.peak = dict(self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in (out,) if isinstance(out, Tensor) else tree_iter(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                known = self._known.get(storage._cdata)
                if known is None or known[1] != storage.nbytes():  # new, or resized
                    self._count(storage, known[2] if known else self._where(tensor))
        self.kernels.see(func, args, kwargs or {}, out, self.on_host)
        return out

    def on_host(self, tensor: Tensor) -> bool:
        """Whether a tensor counts as the host's."""
        known = self._known.get(tensor.untyped_storage()._cdata)
        return (known[2] if known else self._where(tensor)) == HOST

    def _where(self, tensor: Tensor) -> str:
        return self._made or (DEVICE if tensor.device.type == self.compute else HOST)

    def _count(self, storage: torch.UntypedStorage, where: str) -> None:
        address, size = storage._cdata, storage.nbytes()
        self._forget(address)
        self._known[address] = (weakref.ref(storage, lambda _: self._forget(address)), size, where)
        self.live[where] += size
        self.peak[where] = max(self.peak[where], self.live[where])

    def _forget(self, address: int) -> None:
        _, size, where = self._known.pop(address, (None, 0, DEVICE))
        self.live[where] -= size


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, attention on `meta` takes the kernels that a GPU takes, which never hold the N x N matrix.

    Left alone, `scaled_dot_product_attention` writes that matrix out on `meta`. The function itself is exchanged, and
    not caught by a mode: backward passes leave function modes, and recompute blocks under checkpointing.
    """
    original = F.scaled_dot_product_attention

    def attention(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return (_fused if query.is_meta else original)(query, *args, **kwargs)

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Flash attention; memory-efficient attention for what flash does not take: masks, float32, wide heads."""
    if attn_mask is None and query.dtype != torch.float32 and query.shape[-1] <= FLASH_WIDTH:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    with_sums = torch.is_grad_enabled() and query.requires_grad
    return efficient(query, key, value, attn_mask, with_sums, dropout_p, is_causal, scale=scale)[0]
