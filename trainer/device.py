"""What a torch device has: the only module that knows of kinds of devices.

Streams, memory counts and their kin are asked of `torch.get_device_module(device)`, so that CUDA, ROCm and Intel's xpu
take the same path; what a module lacks is done without. The CPU is the special case: it has none of them.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch

from .choices import AUTO
from .errors import ConfigError, brief
from .lock import exclusive

KINDS = ("cuda", "xpu")  # that "auto" looks for, in this order; ROCm calls itself cuda
Device = torch.device | str

# how libraries say that memory has run out, if it was not torch's own allocator that noticed
FULL = (
    "out of memory",  # CUDA's driver, MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no room for the handle of its workspace
    "HIPBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MIOPEN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN: no engine's workspace fits
    "Unable to find a valid cuDNN algorithm",
    "OUT_OF_DEVICE_MEMORY",  # xpu
)


def pick_device(name: str) -> str:
    """The torch device that a setting names; "auto" is the first of KINDS that is there, else the CPU.

    Raises:
        ConfigError: no such device here, or one that cannot train.
    """
    if name == AUTO:
        return next((kind for kind in KINDS if _is_there(kind)), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device = {brief(name)}: not a torch device, such as 'cuda', 'cuda:1' or 'cpu'") from None
    if device.type == "mps":
        raise ConfigError(f"device = {brief(name)}: advantages need float64, which Apple's GPUs lack; use 'cpu'")
    if device.type == "cpu":
        return "cpu"
    if not _is_there(device.type):
        raise ConfigError(
            f"device = {brief(name)}: torch sees no such device; use 'cpu', or install a torch that is built for it"
        )
    if device.index is not None and device.index >= _count(device.type):
        there = ", ".join(devices())
        raise ConfigError(f"device = {brief(name)}: torch sees no device of this number; there is {there}")
    return name


def devices() -> list[str]:
    """Every device here that can train, the CPU last."""
    there = [kind for kind in KINDS if _is_there(kind)]
    return [*(f"{kind}:{n}" for kind in there for n in range(_count(kind))), "cpu"]


def _count(kind: str) -> int:
    """Devices of a kind that is there."""
    module = getattr(torch, kind)
    return module.device_count() if hasattr(module, "device_count") else 1


def _is_there(kind: str) -> bool:
    module = getattr(torch, kind, None)
    return module is not None and hasattr(module, "is_available") and module.is_available()


def module_of(device: Device) -> Any:
    """torch.cuda, torch.xpu, ...; None for the CPU and for meta, which compute at once and count no memory."""
    device = torch.device(device)
    return None if device.type in ("cpu", "meta") else torch.get_device_module(device)


def current(device: Device) -> AbstractContextManager[None]:
    """Inside, the device is the current one, as kernels need that are not torch's: they go to the current one alone."""
    module = module_of(device)
    return nullcontext() if module is None else module.device(torch.device(device))


def streams_of(device: Device) -> Any:
    """The device's module if copies can run beside its computation (and from page-locked memory), else None."""
    module = module_of(device)
    return module if module is not None and hasattr(module, "Stream") and hasattr(module, "current_stream") else None


def synchronize(device: Device) -> None:
    """Wait until the device has done what it was given."""
    module = module_of(device)
    if module is not None:
        module.synchronize(device)


def computes_bfloat16(device: Device) -> bool:
    """Whether the device multiplies bfloat16 in hardware, as NVIDIA's from compute capability 8.0 on; not the CPU."""
    module = module_of(device)
    if module is None:
        return False
    with current(device):  # which the question is about
        return module.is_bf16_supported(including_emulation=False)


def multiplies_eight_bits(device: Device) -> bool:
    """Whether the device multiplies float8 with a scale for each row, as NVIDIA's do from compute capability 8.9 on."""
    ones = torch.ones(16, 16, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones(16, 1, device=device)
    try:
        torch._scaled_mm(ones, ones.T, scale_a=scale, scale_b=scale.T.contiguous(), out_dtype=torch.bfloat16)
    except (RuntimeError, NotImplementedError, ValueError, AttributeError):
        return False
    return True


def kernels_by_triton(device: Device) -> bool:
    """Whether Triton is installed and compiles for such a device; not whether it works, which a trial shows."""
    return torch.device(device).type in KINDS and find_spec("triton") is not None


def usual_dtype(device: Device) -> str:
    """What a model computes in if nobody says: float32 on the CPU, bfloat16 on a GPU, float16 on one that lacks it."""
    if module_of(device) is None:
        return "float32"
    return "bfloat16" if computes_bfloat16(device) else "float16"


# ---- memory


def free_memory(device: Device) -> int | None:
    """Bytes that this process may still take: what the driver has, and what torch holds without a tensor in it.

    None if the device does not tell.
    """
    module = module_of(device)
    if module is None or not hasattr(module, "mem_get_info"):
        return None
    return module.mem_get_info(device)[0] + module.memory_reserved(device) - module.memory_allocated(device)


def allocated_memory(device: Device) -> int:
    """Bytes of this process's tensors on the device; 0 if it does not count them."""
    module = module_of(device)
    return module.memory_allocated(device) if hasattr(module, "memory_allocated") else 0


def watch_memory(device: Device) -> None:
    """Begin to watch for the peak of the memory that this process takes on `device`."""
    module = module_of(device)
    if hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats(device)


def peak_memory(device: Device) -> dict[str, float]:
    """The peak since then in bytes, as a metric; nothing if the device does not count it."""
    module = module_of(device)
    counts = hasattr(module, "max_memory_allocated")
    return {"memory/device": float(module.max_memory_allocated(device))} if counts else {}


def release(device: Device) -> None:
    """Give back what no tensor uses any more: the device's memory, and host memory that was page-locked for it."""
    gc.collect()
    module = module_of(device)
    if module is None:
        return
    if hasattr(module, "empty_cache"):
        module.empty_cache()
    empty_host_cache = getattr(torch._C, "_host_emptyCache", None)  # torch 2.5 and newer
    if empty_host_cache is not None and torch.device(device).type in KINDS:
        empty_host_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device is full, be it torch's allocator, the driver or a library."""
    full = isinstance(error, RuntimeError) and any(text in str(error) for text in FULL)
    return full or isinstance(error, torch.cuda.OutOfMemoryError)


@contextmanager
def training_on(device: str) -> Iterator[None]:
    """Own a device, such as "cuda" or "cuda:1", for a training: its memory is not enough for two. The CPU has many.

    Raises:
        Busy: another training, in this process or another, is at work on it.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        yield
        return
    message = f"another training is running on {device}: wait for it, or cancel it"
    with exclusive(f"device {kind}:{number or 0}", message), without_spilling(device):
        yield


@contextmanager
def without_spilling(device: Device) -> Iterator[None]:
    """Inside, memory that does not fit is an error on Windows too, and can be answered.

    There the driver would silently put it into host memory instead, at a hundredth of the speed.
    """
    module = module_of(device)
    if sys.platform != "win32" or not hasattr(module, "set_per_process_memory_fraction"):
        yield
        return
    own = module.memory_reserved(device)
    free, total = module.mem_get_info(device)
    number = torch.device(device).index  # None is the current one; a device without a number is refused
    module.set_per_process_memory_fraction(min(1.0, (free + own) / total), number)
    try:
        yield
    finally:
        module.set_per_process_memory_fraction(1.0, number)


# ---- precision


@contextmanager
def tensor_cores(device: Device) -> Iterator[None]:
    """Inside, float32 matrix products on a GPU are TF32: those of a float32 model, of DoRA and of float32 rewards.

    Distances and log-probabilities are sums, which it does not touch.
    """
    before = torch.get_float32_matmul_precision()
    if module_of(device) is not None:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
