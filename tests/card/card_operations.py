"""How an operation on tensors of the card is done: what CUDA refuses is refused, the rest is the CPU's."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from card_attention import attention
from card_copies import COPIES, between, copied, deferred, touch, wait
from card_errors import fail
from card_memory import memory, poisoned
from card_streams import COMPUTING, streams
from card_tensor import NAME, Card

aten = torch.ops.aten
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
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
        composite=torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), COMPOSITE),
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
    if known.composite:
        return function._op_dk(COMPOSITE, *args, **kwargs)
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    if function is aten._has_compatible_shallow_copy_type.default:  # Module.to asks: may `.data =` be used?
        return all(isinstance(x, Card) for x in tensors)
    if function in COPIES and between(function, args, kwargs):
        return copied(function, args, kwargs)
    _refuse_mixed(function, known, tensors)
    _note_waits(function, known, args, kwargs)
    stream = streams.current
    stream.tick()
    if stream is not COMPUTING:
        if function is aten.copy_.default:
            touch(args[1].block, write=False)
            return deferred(args[0], args[1].raw)
        stream.flush()
    _use(known, args, kwargs, tensors)
    return _computed(function, known, args, kwargs, tensors)


def _computed(function, known: Facts, args, kwargs, tensors):
    raw_args, raw_kwargs = [_raw(x) for x in args], {name: _raw(x) for name, x in kwargs.items()}
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
        if isinstance(result, (list, tuple)):
            return [_wrapped(x, tensors) for x in result]
        return result


def _raw(x):
    """An argument as the CPU takes it. Lists of tensors are never nested."""
    if isinstance(x, (list, tuple)):
        return [t.raw if isinstance(t, Card) else t for t in x]
    return x.raw if isinstance(x, Card) else x


def _tensors(arguments) -> Iterator[torch.Tensor]:
    for x in arguments:
        if isinstance(x, torch.Tensor):
            yield x
        elif isinstance(x, (list, tuple)):
            yield from (t for t in x if isinstance(t, torch.Tensor))


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
            found = f"but found at least two devices, {NAME}:0 and {x.device}! (in {function})"
            fail(RuntimeError(f"Expected all tensors to be on the same device, {found}"))


def _note_waits(function, known: Facts, args, kwargs) -> None:
    if known.wait and not (known.wait == "repeat_interleave" and kwargs.get("output_size") is not None):
        wait(known.wait)
    elif function.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                wait("nonzero")
            elif index is not None and not isinstance(index, Card):
                wait("to card")


def _use(known: Facts, args, kwargs, tensors) -> None:
    """Note what the current operation reads and writes.

    Raises:
        Race: another stream may not be done with it.
    """
    if known.view:
        return
    written = {id(x) for x in _tensors(_argument(place, args, kwargs) for place in known.writes)}
    for x in tensors:
        if isinstance(x, Card):
            touch(x.block, write=id(x) in written)


def _argument(place: int | str, args, kwargs):
    if isinstance(place, str):
        return kwargs.get(place)
    return args[place] if place < len(args) else None
