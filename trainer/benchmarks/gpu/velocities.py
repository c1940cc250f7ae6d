"""Checks 3 and 12: the same velocity in rollout and update, and how far other precisions are off."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from ...device import multiplies_eight_bits
from ...engine.drawing import policy_velocity
from ...engine.state import Setup
from ...models.flux1.vae import Vae
from ...models.storage.eight_bits import EIGHT_BITS, widen
from ...models.storage.frozen import FrozenLinear
from ...training.self_test import self_test
from .bench import Bench, latents, relative
from .counts import Case
from .ground import FUSED
from .models import random_reward, random_vae
from .results import Value

OTHERS = 1e-2  # relative, between micro-batches and between attention kernels
SAME = "with gradient, the same micro-batch"


def ratio(bench: Bench) -> Iterator[Value]:
    """The ratio of new to old policy is 1 only if the velocity with gradient is the one without."""
    _, setup = bench.best()
    size = setup.micro_batch.size
    without = evaluated(setup, size, gradient=False)
    yield Value(SAME, relative(evaluated(setup, size, gradient=True), without), high=0)
    for other in bench.sizes.micro_batches:
        if other != size:
            name = f"micro-batch {other} against {size}"
            yield Value(name, relative(evaluated(setup, other, gradient=False), without), high=OTHERS)
    for kernel in FUSED:
        name = kernel.name.removesuffix("_ATTENTION").lower()
        try:
            with sdpa_kernel(kernel):
                plain, graded = (evaluated(setup, size, gradient=g) for g in (False, True))
        except RuntimeError as error:
            yield Value(f"{name} attention", f"not here ({str(error).partition(chr(10))[0][:80]})")
            continue
        yield Value(f"{name} attention: with gradient", relative(graded, plain), high=OTHERS)
        yield Value(f"{name} attention: against the default", relative(plain, without), high=OTHERS)
    tested = self_test(setup, 0)
    yield Value("the run's self-test", tested.cause or "passes", equals="passes")


def evaluated(setup: Setup, micro_batch: int, *, gradient: bool) -> Tensor:
    """The velocity of the same candidates in micro-batches of that size, as rollout or update compute it."""
    with torch.set_grad_enabled(gradient):
        return policy_velocity(setup, [0], micro_batch)(*latents(setup, setup.micro_batch.size)).detach()


def precision(bench: Bench) -> Iterator[Value]:
    """Fewer bits: of the blocks' weights, of the autoencoder, of a reward's model."""
    found = {}
    for memory in ("bf16", "fp8"):
        setup = bench.full(Case(memory, 0.0, bench.sizes.pixels, 4))
        found[memory] = evaluated(setup, 4, gradient=False).cpu()
    yield Value("velocity by fp8 weights", relative(found["fp8"], found["bf16"]), low=1e-4, high=0.1)
    yield from eight_bits(bench, setup, found["bf16"])
    del setup
    bench.drop()
    yield from pictures(bench)
    exact, half = (scores(bench, dtype) for dtype in (torch.float32, torch.float16))
    yield Value("reward's cosine in float16", float((half - exact).abs().max()), high=2e-3)


def eight_bits(bench: Bench, setup: Setup, exact: Tensor) -> Iterator[Value]:
    """Triton's kernel against torch, for every byte; and products in 8 bits, if the device has them."""
    every = torch.arange(256, device=bench.card.device).to(torch.uint8).view(2, 128)
    scale = torch.tensor([[0.37], [3.1]], device=bench.card.device)
    for kind in EIGHT_BITS:
        stored = every.view(kind)
        plain = stored.to(torch.bfloat16).mul_(scale)
        same = torch.isclose(widen(stored, scale, torch.bfloat16), plain, rtol=0, atol=0, equal_nan=True)
        yield Value(f"{str(kind).removeprefix('torch.')} widened otherwise than by torch", float((~same).sum()), high=0)
    if not multiplies_eight_bits(bench.card.device):
        return
    for layer in setup.policy.network.modules():
        if isinstance(layer, FrozenLinear):
            layer.in_8_bits = True
    yield Value("velocity by fp8 products", relative(evaluated(setup, 4, gradient=False).cpu(), exact), high=0.1)


def pictures(bench: Bench) -> Iterator[Value]:
    """Differences of decoded pixels from float32's."""
    edge = bench.sizes.pixels // 8
    z = torch.randn(1, 16, edge, edge, generator=torch.Generator().manual_seed(5)).to(bench.card.device)
    decoded = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with torch.no_grad():
            decoded[dtype] = Vae(random_vae(bench.sizes.path, {}, dtype)).decode(z).cpu()
    exact = decoded.pop(torch.float32)
    for dtype, images in decoded.items():
        name, off = f"autoencoder in {str(dtype).removeprefix('torch.')}", (images - exact).abs()
        # float16 is not used by the product: random weights say little of its range, a trained decoder leaves it
        yield Value(f"{name}: mean over pixels", float(off.mean()), high=0.02 if dtype == torch.bfloat16 else None)
        yield Value(f"{name}: the farthest pixel", float(off.max()))


def scores(bench: Bench, dtype: torch.dtype) -> Tensor:
    reward = random_reward(bench.sizes.reward, str(bench.card.device), dtype, bench.draw_on)
    edge = bench.sizes.pixels
    images = torch.rand(4, 3, edge, edge, generator=torch.Generator().manual_seed(6)).to(bench.card.device)
    return reward.score(images, ["a red fox"] * 4).float().cpu()
