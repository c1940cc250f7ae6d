"""Check 0: what the card does at all, before the project asks anything of it."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...device import streams_of
from .bench import Bench, dtype_of
from .results import Value

FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)  # cuDNN's is not used, see models/attention.py
HEADS, WIDTH = 24, 128  # FLUX's attention
PRODUCT = "matrix product"


def ground(bench: Bench) -> Iterator[Value]:
    card = bench.card
    yield Value(PRODUCT, product(bench) / 1e12, "TFLOP/s", **card.on_h200(770, 800))
    seconds, arrived = to_device(bench)
    yield Value("copy to the device", bench.sizes.copied / seconds / 1e9, "GB/s", **card.on_h200(40, 55))
    yield Value("what arrives", "the same" if arrived else "another", equals="the same")
    yield Value(
        "copy within the device", 2 * bench.sizes.moved / within(bench) / 1e12, "TB/s", **card.on_h200(4.1, 4.3)
    )
    working = [kernel.name.removesuffix("_ATTENTION").lower() for kernel in FUSED if attends(bench, kernel)]
    yield Value("fused attention kernels", float(len(working)), ", ".join(working), low=1)
    if hasattr(card.module, "get_allocator_backend"):
        yield Value("allocator", card.module.get_allocator_backend())


def product(bench: Bench) -> float:
    """FLOP/s of a square matrix product."""
    n = bench.sizes.matrix
    a, b = (torch.randn(n, n, device=bench.card.device, dtype=dtype_of(bench.sizes)) for _ in range(2))
    bench.card.seconds(lambda: a @ b, 3)  # the library chooses its kernel, the clock rises
    return 2 * n**3 / bench.card.seconds(lambda: a @ b, 20)


def to_device(bench: Bench) -> tuple[float, bool]:
    """Seconds of a copy from page-locked memory on a stream of its own, and whether the bytes arrive."""
    device, streams = bench.card.device, streams_of(bench.card.device)
    host = torch.empty(bench.sizes.copied, dtype=torch.uint8, pin_memory=streams is not None)
    host.random_(generator=torch.Generator().manual_seed(1))
    target = torch.empty_like(host, device=device)

    def copy() -> None:
        if streams is None:
            target.copy_(host)
            return
        stream, beside = bench.card.beside()
        stream.wait_stream(streams.current_stream(device))
        with beside:
            target.copy_(host, non_blocking=True)
        streams.current_stream(device).wait_stream(stream)

    copy()
    seconds = bench.card.seconds(copy, 4)
    return seconds, torch.equal(target.cpu(), host)


def within(bench: Bench) -> float:
    """Seconds of a copy from the device's memory to the device's memory."""
    source = torch.zeros(bench.sizes.moved, dtype=torch.uint8, device=bench.card.device)
    target = torch.empty_like(source)
    target.copy_(source)
    return bench.card.seconds(lambda: target.copy_(source), 10)


def attends(bench: Bench, kernel: SDPBackend) -> bool:
    """Whether attention of FLUX's shape runs by this kernel, its backward pass included."""
    shape = 1, HEADS, bench.sizes.narrow_pixels, WIDTH
    query = torch.randn(shape, device=bench.card.device, dtype=dtype_of(bench.sizes), requires_grad=True)
    try:
        with sdpa_kernel(kernel):
            F.scaled_dot_product_attention(query, query, query).sum().backward()
    except RuntimeError:
        return False
    return bool(query.grad.isfinite().all())
