"""Copies between host and card, copies on other streams, and who may touch which memory."""

import functools

import torch
from card_memory import Block, poisoned
from card_streams import COMPUTING, refuse, seen, streams
from card_tensor import NAME, Card
from card_waits import waited

aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)


def touch(block: Block, *, write: bool) -> None:
    """Note that the current operation reads or writes a block.

    Raises:
        Race: another stream may not be done with it.
    """
    stream = streams.current
    used = block.used
    if len(used) > 1 or stream not in used:
        past = used.items() if write else (block.written,)
        for other, moment in past:
            if not seen(stream, other, moment):
                what = "memory that another stream may still use" if write else "memory that a copy has yet to fill"
                refuse(f"{what} is {'written' if write else 'read'}: wait_stream or wait_event first")
    used[stream] = stream.now
    if write:
        block.written = (stream, stream.now)


def wait(kind: str) -> None:
    """The host waits for the current stream."""
    waited(kind)
    streams.current.synchronize()


def between(function, args, kwargs) -> bool:
    """Whether a copy has one end on the host."""
    if function is aten.copy_.default:
        return isinstance(args[0], Card) != isinstance(args[1], Card)
    device = kwargs.get("device")
    return device is not None and (torch.device(device).type == NAME) != isinstance(args[0], Card)


def copied(function, args, kwargs):
    """A copy from the host to the card, or back."""
    non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    stream = streams.current
    stream.tick()
    if function is aten.copy_.default:
        (target, source), convert = args[:2], lambda raw: raw
    else:
        target, source = None, args[0]
        options = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "non_blocking")}
        convert = functools.partial(aten._to_copy.default, **options)
    if isinstance(source, Card):
        return _to_host(target, source, convert, non_blocking)
    numbers = convert(source)
    if target is None:
        target = Card(torch.empty_like(numbers))
    if stream is not COMPUTING and non_blocking:
        # from pageable memory, the driver takes the numbers before it answers
        return deferred(target, numbers if source.is_pinned() else numbers.clone())
    touch(target.block, write=True)
    target.raw.copy_(numbers)
    if not non_blocking:
        wait("to card")
    return target


def _to_host(target: torch.Tensor | None, source: Card, convert, non_blocking: bool):
    """The host's copy is there when the host has waited for the stream."""
    stream = streams.current
    touch(source.block, write=False)
    if not non_blocking:
        wait("to host")
    elif stream is not COMPUTING:
        stream.flush()
    numbers = convert(source.raw).clone()
    if target is None:
        target = torch.empty_like(numbers)
    if not non_blocking:
        return target.copy_(numbers)
    poisoned(target)
    stream.defer(lambda: target.copy_(numbers))
    return target


def deferred(target: Card, raw_source: torch.Tensor) -> Card:
    """A copy on another stream than the computing one: done when somebody waits for it, and NaN until then."""
    touch(target.block, write=True)
    raw = target.raw
    poisoned(raw)
    streams.current.defer(lambda: raw.copy_(raw_source))
    return target
