"""Copies from host memory to the device, beside its computation."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

PIECE = 2**25  # bytes of a buffer


@dataclass
class _Buffer:
    memory: Tensor  # [PIECE] uint8, page-locked
    copied: Any = None  # the event after which it may be filled again


class Stage:
    """Copies on a stream of their own.

    The device fetches by itself what is page-locked, and nothing else. Other weights go through two buffers that are:
    a thread fills one while the device copies the other.

    Args:
        streams: the device's module, see `streams_of`.
        stream: that copies.
    """

    def __init__(self, streams: Any, stream: Any):
        self._streams, self._stream = streams, stream

    def copy(self, source: Tensor, target: Tensor) -> Callable[[], Any]:
        """Begin to copy after what the current stream has been given so far.

        Args:
            source: in host memory, contiguous.
            target: on the device, of the same shape and type.

        Returns:
            what gives the event of the copy's end. It may have to wait for the thread.
        """
        current = self._streams.current_stream(target.device)
        if source.is_pinned() or not self._buffers:
            self._stream.wait_stream(current)
            with self._streams.stream(self._stream):
                target.copy_(source, non_blocking=True)
            event = self._stream.record_event()
            return lambda: event
        return self._thread.submit(self._copy, [source, target], current.record_event()).result

    def _copy(self, ends: list[Tensor], begun: Any) -> Any:
        source, target = ends
        ends.clear()  # else the thread would still hold the target's memory when the copy is said to be done
        size = PIECE // source.element_size()
        self._stream.wait_event(begun)
        with self._streams.stream(self._stream):
            for piece, place in zip(source.view(-1).split(size), target.view(-1).split(size), strict=True):
                buffer = self._buffers[0]
                self._buffers.reverse()
                if buffer.copied is not None:
                    buffer.copied.synchronize()
                filled = buffer.memory[: piece.nbytes].view(piece.dtype)
                place.copy_(filled.copy_(piece), non_blocking=True)
                buffer.copied = self._stream.record_event()
        return buffer.copied

    @cached_property
    def _buffers(self) -> list[_Buffer]:
        """None if even these cannot be page-locked: then the host waits for its copies."""
        try:
            return [_Buffer(torch.empty(PIECE, dtype=torch.uint8, pin_memory=True)) for _ in range(2)]
        except RuntimeError as error:
            log.warning(
                "no memory can be page-locked (%s): the host waits for its copies", str(error).partition("\n")[0]
            )
            return []

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "offload")
