"""Offload: frozen weights in host memory, copied to the device that computes when a layer needs them, one ahead."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...device import streams_of


class Moment(NamedTuple):
    """When a weight is fetched."""

    in_backward: bool  # whether a backward pass is under way
    own: bool  # whether it is for the layer's own backward pass, and not for a forward pass that is run again
    weight: Tensor  # by its identity


@dataclass(frozen=True)
class _Copy:
    weight: Tensor  # the one that was copied
    copy: Tensor
    done: Any  # an event of the device; None if the copy was made at once


class LayerFetcher:
    """Copies weights, and copies the next layer's while this one computes. At most two copies are alive at once.

    Which weight comes next is learned: the one that came next the last time. Checkpointing runs a block's forward pass
    again within the backward pass, and there another layer follows its last one, hence the first part of the key.
    A wrong guess costs one copy and nothing else.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._streams = streams_of(device)
        self.stream = self._streams.Stream(device) if self._streams else None
        self._last: Moment | None = None
        self._next: dict[Moment, Tensor] = {}
        self._ahead: _Copy | None = None

    def fetch(self, weight: Tensor, *, backward: bool) -> Tensor:
        """A copy of `weight` on the device; the caller lets go of it before the next call."""
        moment = Moment(torch._C._current_graph_task_id() != -1, backward, weight)
        if self._last is not None:
            self._next[self._last] = weight
        self._last = moment
        copy = self._made_ahead(weight)
        if copy is None:
            copy = self._arrived(self._begin(weight))
        if moment in self._next:
            self._ahead = self._begin(self._next[moment])
        return copy

    def settle(self) -> None:
        """Let go of the copy made ahead: nobody uses the model for a while."""
        if self._ahead is not None:
            self._arrived(self._ahead)  # else the copying stream would write into memory that is another's by then
            self._ahead = None

    def _begin(self, weight: Tensor) -> _Copy:
        """Its memory is the computing stream's, and what used that memory before is queued there already: the copying
        stream waits for that. So no `record_stream` is needed, which would put off the memory's next use."""
        copy = torch.empty_like(weight, device=self.device)
        if self.stream is None:
            return _Copy(weight, copy.copy_(weight), None)
        self.stream.wait_stream(self._streams.current_stream(self.device))
        with self._streams.stream(self.stream):
            copy.copy_(weight, non_blocking=True)
        return _Copy(weight, copy, self.stream.record_event())

    def _arrived(self, copied: _Copy) -> Tensor:
        if copied.done is not None:
            self._streams.current_stream(self.device).wait_event(copied.done)
        return copied.copy

    def _made_ahead(self, weight: Tensor) -> Tensor | None:
        """The copy made ahead, if it is of `weight`. Another's is waited for too, as its memory is used again."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        copy = self._arrived(ahead)
        return copy if ahead.weight is weight else None
