"""A card made of the CPU: device "card" computes real numbers, and has what a GPU has that a CPU forgives.

    import card                      # before anything else touches torch's private backend, once a process
    x = torch.ones(3, device="card")     # card.CARD is torch.device("card:0")

- Tensors of two devices in one operation are refused, as CUDA does (numbers [] and indices excepted).
- Memory is counted (`card.memory`: live, peak, reserved) and has a limit: beyond it, torch.OutOfMemoryError. Fresh
  memory is NaN. `memory.fails = {n}` makes the n-th allocation fail, once.
- What makes the host wait is listed with its place (`card.waits`): .item(), .cpu(), .tolist(), a boolean mask, and a
  copy to the card that is not `non_blocking`, as torch.cuda.set_sync_debug_mode has it.
- A copy on another stream happens only if somebody waits for it; until then the destination is NaN. Two uses of the
  same memory by two streams without a wait between them are refused (`card.Race`), also if the memory was given back
  and taken again in between: a missing wait is seen at once and every time, which no real card offers.

`torch.get_device_module("card")` offers what torch.cuda does: Stream, Event, stream, current_stream, mem_get_info,
memory_allocated, ... What it cannot show: kernels, seconds, fragments of memory, workspaces, compile.

torch renames its private backend once a process, and the registration below is for torch 2.14's Python backends.
"""

import contextlib
import functools
from collections.abc import Iterator

import torch
from card_attention import attention
from card_errors import pending
from card_memory import TOTAL, memory
from card_operations import run
from card_streams import COMPUTING, Event, Race, Stream, Streams, races, streams
from card_tensor import NAME, Card
from card_waits import Wait, waited, waits
from torch.optim.optimizer import _foreach_supported_types
from torch.utils._device import _device_constructors
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

__all__ = [
    "CARD",
    "TOTAL",
    "Card",
    "Event",
    "Race",
    "Stream",
    "Streams",
    "Wait",
    "memory",
    "module",
    "pinning",
    "races",
    "reset",
    "waits",
]


class Module(_DummyBackendModule):
    """What torch.cuda offers, as torch.card."""

    Stream, Event = Stream, Event
    capability = (8, 9)  # (major, minor); below (8, 0) there is no bf16
    OutOfMemoryError = torch.OutOfMemoryError

    def current_stream(self, device=None) -> Stream:
        return streams.current

    def default_stream(self, device=None) -> Stream:
        return COMPUTING

    def stream(self, stream: Stream | None):
        return streams.use(stream)

    def set_stream(self, stream: Stream) -> None:
        streams.stack[-1] = stream

    def synchronize(self, device=None) -> None:
        waited("synchronize")
        for stream in list(Stream.alive):
            stream.synchronize()

    def mem_get_info(self, device=None) -> tuple[int, int]:
        return memory.free, memory.size

    def memory_allocated(self, device=None) -> int:
        return memory.live

    def memory_reserved(self, device=None) -> int:
        return memory.reserved

    def max_memory_allocated(self, device=None) -> int:
        return memory.peak

    def max_memory_reserved(self, device=None) -> int:
        return memory.reserved_peak

    def reset_peak_memory_stats(self, device=None) -> None:
        memory.restart_peak()

    def empty_cache(self) -> None:
        memory.give_cache_back()

    def set_per_process_memory_fraction(self, fraction: float, device=None) -> None:
        memory.limit = round(fraction * TOTAL)

    def get_device_capability(self, device=None) -> tuple[int, int]:
        return self.capability

    def get_device_name(self, device=None) -> str:
        return "card made of the CPU"

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return self.capability >= (8, 0)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device=NAME) -> torch.Tensor:  # checkpointing asks for it
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device=NAME) -> None:
        torch.set_rng_state(state)

    def device(self, device):
        return contextlib.nullcontext()


def reset() -> None:
    """As after the start, but for what lives: no limit, no work under way, empty lists, a new peak."""
    memory.limit, memory.poison, Streams.strict, module.capability = None, True, True, (8, 9)
    memory.fails.clear()
    module.synchronize()
    waits.clear()
    races.clear()
    pending.clear()
    memory.restart_peak()
    memory.give_cache_back()


@contextlib.contextmanager
def pinning() -> Iterator[list[torch.Tensor]]:
    """Inside, torch.empty takes `pin_memory` (torch has no page-locked memory for a backend in Python).

    Gives the tensors that were pinned. Copies out of them on another stream read what they hold when the copy is done.
    """
    _device_constructors()  # torch lists them at the first `with device:` of a process, and would keep this stand-in
    empty, is_pinned, pinned = torch.empty, torch.Tensor.is_pinned, []

    def known(tensor: torch.Tensor, device=None) -> bool:
        return any(t.untyped_storage()._cdata == tensor.untyped_storage()._cdata for t in pinned)

    def pinnable(*size, pin_memory: bool = False, **options) -> torch.Tensor:
        tensor = empty(*size, **options)
        if pin_memory:
            pinned.append(tensor)
        return tensor

    torch.empty, torch.Tensor.is_pinned = pinnable, known
    try:
        yield pinned
    finally:
        torch.empty, torch.Tensor.is_pinned = empty, is_pinned


module = Module()
_setup_privateuseone_for_python_backend(NAME, module)
CARD = torch.device(NAME, 0)
_foreach_supported_types.append(Card)  # as torch does on CUDA: optimisers take all of their parameters at once

# What begins without a tensor of the card, or below the Python key (torch.tensor, indexing by a list). One by one: the
# general fallback of torch.library fails there with an internal assertion.
_library = torch.library.Library("aten", "IMPL")
for _name in ("empty.memory_format", "empty_strided", "copy_", "_to_copy", "_local_scalar_dense"):
    _packet, _, _overload = _name.partition(".")
    _operation = getattr(getattr(torch.ops.aten, _packet), _overload or "default")
    _library.impl(_name, functools.partial(lambda op, *a, **k: run(op, a, k), _operation), "PrivateUse1")
_library.impl("scaled_dot_product_attention", attention, "AutogradPrivateUse1")
