"""Where tensors live."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .config import AUTO, ConfigError


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Inside, float32 matrix products on CUDA are TF32: those of a float32 model, of DoRA and of float32 rewards.

    Distances and log-probabilities are sums, which it does not touch.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def watch_memory(device: torch.device) -> None:
    """Begin to watch for the peak of the memory that this process takes on `device`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """The peak since then in bytes, as a metric; only CUDA counts it."""
    return {"memory/device": float(torch.cuda.max_memory_allocated(device))} if device.type == "cuda" else {}


def pick_device(name: str) -> str:
    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device = {name!r}: not a torch device, such as 'cuda', 'cuda:1' or 'cpu'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device = {name!r}: torch sees no CUDA device; use 'cpu', or install torch with CUDA")
    return name
