"""Offload: frozen weights in host memory, copied to the device that computes before a layer needs them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...device import streams_of
from .staging import Stage

AHEAD = 150 * 2**20  # bytes


class Moment(NamedTuple):
    """When a weight is fetched."""

    in_backward: bool  # whether a backward pass is under way
    own: bool  # whether it is for the layer's own backward pass, and not for a forward pass that is run again
    weight: Tensor  # by its identity


@dataclass(frozen=True)
class _Copy:
    copy: Tensor
    done: Callable[[], Any] | None  # gives an event of the device; None if the copy was made at once


class LayerFetcher:
    """Copies weights, and beside the computation those of the moments to come, as many as fit in `ahead` bytes.

    Which moment comes next is learned: the one that came next the last time. Checkpointing runs a block's forward pass
    again within the backward pass, and there another layer follows its last one, hence the first part of a moment.
    A weight is on the device once: what is needed again soon stays. A wrong guess costs copies and nothing else.
    """

    ahead = AHEAD  # bytes; at least one weight

    def __init__(self, device: torch.device):
        self.device = device
        self._streams = streams_of(device)
        self.stream = self._streams.Stream(device) if self._streams else None
        self._stage = Stage(self._streams, self.stream) if self._streams else None
        self._last: Moment | None = None
        self._next: dict[Moment, Moment] = {}
        self._copies: dict[Tensor, _Copy] = {}  # of the moments to come, by weight

    def fetch(self, weight: Tensor, *, backward: bool) -> Tensor:
        """A copy of `weight` on the device, to be read only; the caller lets go of it before the next call."""
        moment = Moment(torch._C._current_graph_task_id() != -1, backward, weight)
        if self._last is not None:
            self._next[self._last] = moment
        self._last = moment
        if weight not in self._copies:
            self._copies[weight] = self._begin(weight)
        copy = self._arrived(self._copies[weight])
        coming = self._coming(moment)
        for other in [w for w in self._copies if w not in coming]:
            self._let_go(other)
        for other in [w for w in coming if w not in self._copies]:
            self._copies[other] = self._begin(other)
        return copy

    def settle(self) -> None:
        """Let go of the copies made ahead: nobody uses the model for a while."""
        for weight in list(self._copies):
            self._let_go(weight)

    def _coming(self, moment: Moment) -> dict[Tensor, None]:
        """The weights of the moments to come, in this order, as far as they are known and fit in."""
        found: dict[Tensor, None] = {}
        room = self.ahead
        for _ in self._next:  # after so many, moments come back
            if moment not in self._next:
                break
            moment = self._next[moment]
            if moment.weight not in found:
                room -= moment.weight.nbytes
                if room < 0 and found:
                    break
                found[moment.weight] = None
        return found

    def _begin(self, weight: Tensor) -> _Copy:
        """Its memory is the computing stream's, and what used that memory before is queued there already: the copying
        stream waits for that. So no `record_stream` is needed, which would put off the memory's next use."""
        copy = torch.empty_like(weight, device=self.device)
        if self._stage is None:
            return _Copy(copy.copy_(weight), None)
        return _Copy(copy, self._stage.copy(weight, copy))

    def _arrived(self, copied: _Copy) -> Tensor:
        if copied.done is not None:
            self._streams.current_stream(self.device).wait_event(copied.done())
        return copied.copy

    def _let_go(self, weight: Tensor) -> None:
        """What is still under way is waited for: else it would write into memory that is another's by then."""
        self._arrived(self._copies.pop(weight))
