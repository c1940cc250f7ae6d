"""The tensor of the card made of the CPU, and how an operation on such tensors is done."""

import contextlib
import functools
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_iter, tree_map

from card_attention import attention
from card_memory import memory, poisoned
from card_streams import COMPUTING, refuse, seen, streams
from card_waits import waited

aten = torch.ops.aten
NAME = "card"
COPIES = (aten.copy_.default, aten._to_copy.default)
FRESH = (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)
WAITING = {
    "_local_scalar_dense": "item",
    "equal": "equal",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "bincount": "bincount",
}
# a number [] of the host may meet tensors of the card here, as on CUDA; and in every pointwise operation
NUMBERS = ("masked_fill", "index_put", "fill", "where", "lerp", "_foreach_")


class Card(torch.Tensor):
    """A tensor on the card; `raw` holds its numbers with the same strides, `block` is its memory."""

    @staticmethod
    def __new__(cls, raw):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, raw):
        self.raw, self.block = raw, memory.block_of(raw)

    def __repr__(self):
        return f"Card({self.raw!r})"

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, new):  # as peft does to make a LoRA float32
        self.raw, self.block = new.raw, new.block
        torch.Tensor.data.__set__(self, new)

    def __deepcopy__(self, memo):
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True
        return memo.setdefault(id(self), copy)

    def __format__(self, spec):
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def tolist(self):  # torch refuses it for subclasses
        return self.cpu().tolist()

    def untyped_storage(self):  # safetensors asks what shares memory
        return self.raw.untyped_storage()

    def data_ptr(self):
        return self.raw.data_ptr()

    def numpy(self, *args, **kwargs):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    def record_stream(self, stream):
        self.block.recorded.add(stream)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


class Facts(NamedTuple):
    """What is to be known of an operation, once."""

    composite: bool  # made of others: in inference mode `x.to(other)` or `linear` come here whole
    wait: str  # why the host waits
    view: bool
    writes: tuple[int | str, ...]  # which arguments: positions and names
    numbers: bool


@functools.cache
def facts(function) -> Facts:
    name, schema = function.overloadpacket.__name__, function._schema
    writes = [
        i if not argument.kwarg_only else argument.name
        for i, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    returned = schema.returns[0].alias_info if schema.returns else None
    return Facts(
        composite=function._can_decompose(),
        wait=WAITING.get(name, "") or ("repeat_interleave" if str(function) == "aten.repeat_interleave.Tensor" else ""),
        view=returned is not None and not returned.is_write,
        writes=tuple(writes),
        numbers=torch.Tag.pointwise in function.tags or name.startswith(NUMBERS),
    )


def run(function, args: tuple, kwargs: dict[str, Any]):
    """Do an operation that has a tensor of the card among its arguments, or makes one."""
    if function is aten.scaled_dot_product_attention.default:  # in inference mode; else it is caught before
        return attention(*args, **kwargs)
    known = facts(function)
    if known.composite and (parts := function.decompose(*args, **kwargs)) is not NotImplemented:
        return parts
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    if function is aten._has_compatible_shallow_copy_type.default:  # Module.to asks: may `.data =` be used?
        return all(isinstance(x, Card) for x in tensors)
    if function in COPIES and _between(function, args, kwargs):
        return _copied(function, args, kwargs)
    _refuse_mixed(function, known, tensors)
    _note_waits(function, known, args, kwargs)
    stream = streams.current
    stream.tick()
    if stream is not COMPUTING:
        if function is aten.copy_.default:
            touch(args[1].block, write=False)
            return _deferred(args[0], args[1].raw)
        stream.flush()
    _use(known, args, kwargs, tensors)
    return _computed(function, known, args, kwargs, tensors)


def _computed(function, known: Facts, args, kwargs, tensors):
    raw_args, raw_kwargs = tree_map(_raw, (args, kwargs))
    if raw_kwargs.get("device") is not None and torch.device(raw_kwargs["device"]).type == NAME:
        raw_kwargs["device"] = "cpu"
    raw_kwargs.pop("pin_memory", None)
    # in inference mode too a view of a normal tensor is a normal one
    normal = known.view and tensors and torch.is_inference_mode_enabled() and not tensors[0].is_inference()
    with torch.inference_mode(False) if normal else contextlib.nullcontext():
        result = function(*raw_args, **raw_kwargs)
        if memory.poison and function in FRESH:
            poisoned(result)
        if type(result) is torch.Tensor:
            return _wrapped(result, tensors)
        return tree_map(lambda x: _wrapped(x, tensors), result)


def _raw(x):
    return x.raw if isinstance(x, Card) else x


def _wrapped(x, tensors):
    """The card's tensor of a result: the argument itself if the operation worked in place."""
    if not isinstance(x, torch.Tensor):
        return x
    for tensor in tensors:
        if _raw(tensor) is x:
            if isinstance(tensor, Card) and tensor.shape != x.shape:  # an `out=` that grew, as torch.eye's
                torch.Tensor.data.__set__(tensor, Card(x))
            return tensor
    return Card(x)


# ---- what a card refuses


def _refuse_mixed(function, known: Facts, tensors) -> None:
    on_card = [x for x in tensors if isinstance(x, Card)]
    if len(on_card) == len(tensors) or not on_card:
        return
    if function.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and isinstance(tensors[0], Card):
        return  # CUDA takes indices from the host
    for x in tensors:
        if not isinstance(x, Card) and not (known.numbers and x.dim() == 0):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{NAME}:0 and {x.device}! (in {function})"
            )


def _note_waits(function, known: Facts, args, kwargs) -> None:
    if known.wait and not (known.wait == "repeat_interleave" and kwargs.get("output_size") is not None):
        _wait(known.wait)
    elif function.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                _wait("nonzero")
            elif index is not None and not isinstance(index, Card):
                _wait("to card")


def _wait(kind: str) -> None:
    """The host waits for the current stream."""
    waited(kind)
    streams.current.synchronize()


def _use(known: Facts, args, kwargs, tensors) -> None:
    """Note what the current operation reads and writes.

    Raises:
        Race: another stream may not be done with it.
    """
    written = {id(x) for place in known.writes for x in tree_iter(_argument(place, args, kwargs))}
    for x in tensors:
        if isinstance(x, Card) and not known.view:
            touch(x.block, write=id(x) in written)


def _argument(place: int | str, args, kwargs):
    if isinstance(place, str):
        return kwargs.get(place)
    return args[place] if place < len(args) else None


def touch(block, *, write: bool) -> None:
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


# ---- copies between host and card, and on other streams


def _between(function, args, kwargs) -> bool:
    """Whether a copy has one end on the host."""
    if function is aten.copy_.default:
        return isinstance(args[0], Card) != isinstance(args[1], Card)
    device = kwargs.get("device")
    return device is not None and (torch.device(device).type == NAME) != isinstance(args[0], Card)


def _copied(function, args, kwargs):
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
        return _deferred(target, numbers if source.is_pinned() else numbers.clone())
    touch(target.block, write=True)
    target.raw.copy_(numbers)
    if not non_blocking:
        _wait("to card")
    return target


def _to_host(target: torch.Tensor | None, source: Card, convert, non_blocking: bool):
    """The host's copy is there when the host has waited for the stream."""
    stream = streams.current
    touch(source.block, write=False)
    if not non_blocking:
        _wait("to host")
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


def _deferred(target: Card, raw_source: torch.Tensor) -> Card:
    """A copy on another stream than the computing one: done when somebody waits for it, and NaN until then."""
    touch(target.block, write=True)
    raw = target.raw
    poisoned(raw)
    streams.current.defer(lambda: raw.copy_(raw_source))
    return target
