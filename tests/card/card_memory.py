"""The memory of the card made of the CPU: what is taken, what is kept for later, and what runs out.

A block is the memory of one storage. It lives as long as a tensor of the card shares it, as in torch's allocator, and
knows which stream used it last and when (see card_streams).
"""

import weakref
from dataclasses import dataclass, field

import torch
from card_errors import fail
from card_streams import Stream, seen, streams

TOTAL = 2**36  # bytes, if nobody sets a limit


@dataclass(eq=False)
class Block:
    """One allocation: its bytes, and the uses that whoever takes this memory next has to wait for."""

    size: int
    owner: Stream  # the one that was current: the memory goes back to it
    used: dict[Stream, int]  # the last operation of each stream that touched it
    written: tuple[Stream, int]
    recorded: set[Stream] = field(default_factory=set)  # by Tensor.record_stream: the allocator waits for these itself


class Memory:
    """What torch's caching allocator counts, of an allocator that never splits memory into useless pieces."""

    def __init__(self):
        self.limit: int | None = None  # bytes; None is TOTAL
        self.live = self.peak = self.reserved = self.reserved_peak = 0  # bytes
        self.taken = 0  # allocations so far
        self.fails: set[int] = set()  # which of them (by that count) fail, once each
        self.poison = True  # fresh memory is NaN, so that reading before writing is seen
        self._blocks: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
        self._freed: dict[Stream, dict[Stream, int]] = {}  # owner -> uses of freed memory that it has not waited for

    @property
    def size(self) -> int:
        return TOTAL if self.limit is None else self.limit

    @property
    def free(self) -> int:
        """What the driver would call free: memory that is kept for later is not."""
        return max(0, self.size - self.reserved)

    def block_of(self, raw: torch.Tensor) -> Block:
        """The block of a tensor's storage, taken now if it is new.

        Raises:
            torch.OutOfMemoryError: the limit, or an injected failure.
        """
        storage = raw.untyped_storage()
        block = self._blocks.get(storage._cdata)
        if block is None:
            return self._take(storage._cdata, storage.nbytes())
        if block.size != storage.nbytes():  # an `out=` or a resize_ that grew
            grown = storage.nbytes() - block.size
            self._count(grown)
            block.size = storage.nbytes()
            weakref.finalize(block, self._give, grown, block.owner, {}, set()).atexit = False
        return block

    def restart_peak(self) -> None:
        self.peak, self.reserved_peak = self.live, self.reserved

    def give_cache_back(self) -> None:
        self.reserved = self.live

    def _take(self, key: int, size: int) -> Block:
        self.taken += 1
        if self.taken in self.fails:
            self.fails.discard(self.taken)
            fail(torch.OutOfMemoryError(f"card out of memory. Tried to allocate {size} bytes: injected. GPU 0 has ..."))
        self._count(size)
        stream = streams.current
        used = {stream: stream.now, **self._pending(stream)}
        block = self._blocks[key] = Block(size, stream, used, (stream, stream.now))
        weakref.finalize(block, self._give, size, stream, used, block.recorded).atexit = False
        return block

    def _count(self, more: int) -> None:
        if more > 0 and self.live + more > self.size:
            free = self.size - self.live
            fail(torch.OutOfMemoryError(f"card out of memory. Tried to allocate {more} bytes. GPU 0 has {free} free"))
        self.live += more
        self.peak = max(self.peak, self.live)
        # as torch does before it gives up: what is kept for later goes first
        self.reserved = max(self.live, min(self.reserved, self.size))
        self.reserved_peak = max(self.reserved, self.reserved_peak)

    def _give(self, size: int, owner: Stream, used: dict[Stream, int], recorded: set[Stream]) -> None:
        self.live -= size
        unseen = self._freed.setdefault(owner, {})
        for stream, moment in used.items():
            if stream is not owner and stream not in recorded and not seen(owner, stream, moment):
                unseen[stream] = max(moment, unseen.get(stream, 0))

    def _pending(self, stream: Stream) -> dict[Stream, int]:
        """Uses of memory that was given back, by streams that `stream` has not waited for since."""
        unseen = self._freed.get(stream)
        if not unseen:
            return {}
        self._freed[stream] = {s: moment for s, moment in unseen.items() if not seen(stream, s, moment)}
        return self._freed[stream]


def poisoned(raw: torch.Tensor) -> torch.Tensor:
    """The tensor, full of NaN where its type has one, in place."""
    if raw.is_floating_point():
        if raw.itemsize == 1:
            raw.view(torch.uint8).fill_(0x7F)
        else:
            raw.fill_(float("nan"))
    return raw


memory = Memory()
