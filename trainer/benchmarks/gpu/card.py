"""What the checks ask of the device. What its module lacks, as the CPU's does most, is a reason to skip."""

import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ...device import Device, allocated_memory, free_memory, module_of, release, synchronize, watch_memory
from ...engine.drawing import Clock
from .results import Bounds, Skipped

GIB = 2**30


class Card:
    """A device, its module (None for the CPU), and measurements on it."""

    def __init__(self, device: Device):
        self.device = torch.device(device)
        self.module = module_of(device)
        if self.device.index is None and hasattr(self.module, "current_device"):
            # torch.cuda's set_per_process_memory_fraction takes no device without a number
            self.device = torch.device(self.device.type, self.module.current_device())

    def need(self, name: str) -> Any:
        """The device module's `name`. Raises Skipped."""
        if not hasattr(self.module, name):
            raise Skipped(f"this device has no {name}")
        return getattr(self.module, name)

    @property
    def name(self) -> str:
        return self.module.get_device_name(self.device) if hasattr(self.module, "get_device_name") else str(self.device)

    def on_h200(self, low: float | None, high: float | None) -> Bounds:
        """Bounds that were estimated for an H200 and say nothing of another card."""
        return {"low": low, "high": high} if "H200" in self.name else {}

    # ---- time

    def seconds(self, work: Callable[[], object], repeats: int = 1) -> float:
        """Of one `work()`, until the device has done it; a mean over `repeats`."""
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronize(self.device)
        return (time.perf_counter() - began) / repeats

    def enqueued(self, work: Callable[[], object]) -> float:
        """Seconds that the host takes to hand `work()` to the device."""
        synchronize(self.device)
        began = time.perf_counter()
        work()
        elapsed = time.perf_counter() - began
        synchronize(self.device)
        return elapsed

    # ---- memory

    @property
    def counts_memory(self) -> bool:
        return hasattr(self.module, "max_memory_allocated")

    def allocated(self) -> int:
        """Bytes of tensors on the device, garbage and caches left out."""
        self.release()
        return allocated_memory(self.device)

    def peaks(self) -> tuple[int, int]:
        """Bytes allocated and reserved at most since `watch`."""
        self.need("max_memory_allocated")
        reserved = getattr(self.module, "max_memory_reserved", self.module.max_memory_allocated)
        return self.module.max_memory_allocated(self.device), reserved(self.device)

    def watch(self) -> None:
        watch_memory(self.device)

    def release(self) -> None:
        synchronize(self.device)
        release(self.device)

    def free(self) -> int | None:
        """Bytes that may still be taken; None if the device does not tell."""
        return free_memory(self.device)

    @contextmanager
    def limited(self, size: int) -> Iterator[None]:
        """Inside, this process may take `size` bytes of the device and no more."""
        limit = self.need("set_per_process_memory_fraction")
        self.release()
        total = self.module.mem_get_info(self.device)[1]
        limit(min(1.0, size / total), self.device)
        try:
            yield
        finally:
            limit(1.0, self.device)

    # ---- streams and waits

    def beside(self) -> Any:
        """(stream, context): a stream beside the computing one. Raises Skipped."""
        stream = self.need("Stream")(self.device)
        return stream, self.module.stream(stream)

    def sleep(self, cycles: int) -> None:
        """Have the current stream wait, if the device can."""
        if hasattr(self.module, "_sleep"):
            self.module._sleep(cycles)

    @contextmanager
    def waits(self) -> Iterator[Callable[[], int]]:
        """Gives a function that tells how often the host has waited for the device since the beginning.

        CUDA says so itself. Elsewhere the operations that wait are counted, those of backward passes in other threads
        excepted.
        """
        if not hasattr(self.module, "set_sync_debug_mode"):
            with Reads() as reads:
                yield lambda: reads.count
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.module.set_sync_debug_mode("warn")
            try:
                yield lambda: sum("synchronizing" in str(warning.message) for warning in caught)
            finally:
                self.module.set_sync_debug_mode("default")

    # ---- who it is

    def facts(self) -> dict[str, Any]:
        """The card and what drives it, for the head of a report."""
        facts: dict[str, Any] = {"card": self.name, "torch": torch.__version__, "os": platform.platform()}
        facts |= {"python": platform.python_version(), "cuda": torch.version.cuda, "hip": torch.version.hip}
        facts["driver"] = driver()
        if hasattr(self.module, "get_device_capability"):
            capability = self.module.get_device_capability(self.device)
            facts["capability"] = ".".join(map(str, capability)) if isinstance(capability, tuple) else str(capability)
        if hasattr(self.module, "mem_get_info"):
            free, total = self.module.mem_get_info(self.device)
            facts |= {"memory_gib": round(total / GIB, 2), "free_gib": round(free / GIB, 2)}
        return facts


class Reads(TorchDispatchMode):
    """Counts the operations that make a host wait for a value on the device."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function.overloadpacket.__name__ in self.WAITING
        return function(*args, **(kwargs or {}))


class Watched(Clock):
    """The loop's clock, which reads the memory's peaks of each phase beside its seconds."""

    def __init__(self, card: Card):
        super().__init__(card.device)
        self.card = card
        self.peaks: dict[str, tuple[int, int]] = {}  # bytes allocated and reserved

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.card.release()
        self.card.watch()
        with super().phase(name):
            yield
        if self.card.counts_memory:
            self.peaks[name] = self.card.peaks()


def driver() -> str:
    """NVIDIA's driver version, empty if nobody tells."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.partition("\n")[0].strip()
