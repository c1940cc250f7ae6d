"""Check 0: what the card does at all, before the project asks anything of it."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...device import streams_of
from .bench import Bench, dtype_of, relative
from .results import Value

FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)  # cuDNN's is not used, see models/attention.py
HEADS, WIDTH = 24, 128  # FLUX's attention
PRODUCT = "matrix product"
WRONG = 2e-2  # relative: bfloat16's own error is 3e-3


def ground(bench: Bench) -> Iterator[Value]:
    card = bench.card
    yield Value(PRODUCT, product(bench) / 1e12, "TFLOP/s", **card.on_h200(770, 800))
    seconds, arrived = to_device(bench)
    yield Value("copy to the device", bench.sizes.copied / seconds / 1e9, "GB/s", **card.on_h200(40, 55))
    yield Value("what arrives", "the same" if arrived else "another", equals="the same")
    yield Value(
        "copy within the device", 2 * bench.sizes.moved / within(bench) / 1e12, "TB/s", **card.on_h200(4.1, 4.3)
    )
    yield from kernels(bench)
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


def kernels(bench: Bench) -> Iterator[Value]:
    """Which fused kernels give the gradient that plain mathematics gives; cuDNN's is told, and not used."""
    exact, working = attention_gradient(bench, SDPBackend.MATH), []
    for kernel in (*FUSED, SDPBackend.CUDNN_ATTENTION):
        name = kernel.name.removesuffix("_ATTENTION").lower()
        try:
            off = relative(attention_gradient(bench, kernel), exact)
        except RuntimeError:
            continue
        yield Value(f"{name} attention's gradient", off, high=WRONG if kernel in FUSED else None)
        working += [name] if kernel in FUSED and off <= WRONG else []
    yield Value("fused attention kernels", float(len(working)), ", ".join(working), low=1)


def attention_gradient(bench: Bench, kernel: SDPBackend) -> Tensor:
    """Of queries, keys and values, from a gradient that lies otherwise in memory than the output.

    So it does in FLUX's single blocks, where the output is joined with the other branch.
    """
    generator = torch.Generator().manual_seed(4)
    shape = 1, HEADS, bench.sizes.narrow_pixels, WIDTH
    device, dtype = bench.card.device, dtype_of(bench.sizes)
    query, key, value, back = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4))
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    with sdpa_kernel(kernel):
        out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2, 3)
        gradients = torch.autograd.grad(out, inputs, back.view_as(out))
    return torch.cat([gradient.flatten() for gradient in gradients])
