"""Checks 5, 6 and 8: what the engine adds to bare model calls, where their time goes, what compiling saves."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ...device import synchronize
from ...engine.drawing import policy_velocity
from ...engine.state import Setup
from ...models.storage.compiling import compile_blocks
from ...models.storage.memory import blocks
from ..overhead import alternating
from .bench import Bench, latents
from .ground import PRODUCT
from .offload import forward
from .results import Bounds, Skipped, Value

# kinds of kernels by parts of their names, the first that fits; CUDA's, and the CPU's operations
KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "xmma", "splitk", "addmm", "::mm", "::bmm", "::linear"),
    "copies": ("memcpy", "memset", "contiguous", "::cat", "catarray"),
    "casts": ("copy_kernel", "::copy_", "_to_copy"),
    "elementwise": ("elementwise", "vectorized", "reduce", "norm", "softmax", "index", "gather", "::"),
}
OTHER = "other"
GRAPHS = 10  # two kinds of blocks, with gradient, without, recomputed; more is a graph for each call


def overhead(bench: Bench) -> Iterator[Value]:
    """Whole iterations with the run store writing, against the same number of bare model calls."""
    _, setup = bench.best(steps=2, trained_steps=1)
    setup = replace(setup, config=replace(setup.config, run=replace(setup.config.run, tiles_every=1)))
    pairs = alternating(setup, bench.sizes.pairs, bench.card.seconds)
    ratio = statistics.median(whole / alone for whole, alone in pairs)
    yield Value("an iteration", statistics.median(whole for whole, _ in pairs), "s")
    yield Value("its bare model calls", statistics.median(alone for _, alone in pairs), "s")
    yield Value("ratio", ratio, high=1.05)


def where_time_goes(bench: Bench) -> Iterator[Value]:
    """Of forward passes: speed against check 0's product, the host's part, and the kinds of kernels."""
    case, setup = bench.best()
    ground = bench.results.get(0)
    peak = ground.value(PRODUCT) if ground else None
    for size in bench.sizes.micro_batches:
        seconds = forward(bench, setup, size)
        speed = operations(setup, size) / seconds / 1e12
        yield Value(f"micro-batch {size}", seconds, "s")
        yield Value(f"micro-batch {size}: to hand it over", enqueue(bench, setup, size) / seconds, "of that")
        if isinstance(peak, float):
            expected: Bounds = bench.card.on_h200(0.45, 0.55) if (case.memory, size) == ("bf16", 4) else {}
            expected = expected or {"high": 1.05}  # more is a mistake in the measurement
            yield Value(f"micro-batch {size}: of the product's speed", speed / peak, **expected)
    try:
        found = kinds(bench, setup)
    except Skipped as error:
        yield Value("kinds of kernels", f"skipped: {error}")
        return
    total = sum(found.values())
    for kind, seconds in found.items():
        yield Value(f"share of {kind}", seconds / total, high=0.1 if kind == OTHER else None)


@torch.no_grad()
def operations(setup: Setup, size: int) -> int:
    """Floating point operations of a forward pass: those of its matrix products and of attention."""
    with FlopCounterMode(display=False) as counter:
        policy_velocity(setup, [0], size)(*latents(setup, size))
    return counter.get_total_flops()


@torch.no_grad()
def enqueue(bench: Bench, setup: Setup, size: int) -> float:
    arguments, velocity = latents(setup, size), policy_velocity(setup, [0], size)
    return bench.card.enqueued(lambda: velocity(*arguments))


@torch.no_grad()
def kinds(bench: Bench, setup: Setup) -> dict[str, float]:
    """Seconds of each kind of kernel in one forward pass; on the CPU, of each kind of operation. Raises Skipped."""
    activity = getattr(ProfilerActivity, bench.card.device.type.upper(), None)
    if activity is None:
        raise Skipped("torch's profiler knows no such device")
    arguments, velocity = latents(setup, 4), policy_velocity(setup, [0], 4)
    velocity(*arguments)
    with profile(activities={ProfilerActivity.CPU, activity}) as profiled:
        velocity(*arguments)
        synchronize(bench.card.device)
    found = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in profiled.key_averages():
        if activity == ProfilerActivity.CPU:
            found[kind_of(event.key)] += event.self_cpu_time_total / 1e6
        elif event.device_type.name != "CPU":  # a kernel; an operation's entry repeats the time of its kernels
            found[kind_of(event.key)] += event.self_device_time_total / 1e6
    return found


def kind_of(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), OTHER)


def compiled(bench: Bench) -> Iterator[Value]:
    """Graphs and breaks of the compiled blocks, the seconds until they run, and what they save."""
    case, setup = bench.best()
    if case.offload:
        raise Skipped("torch.compile is not used with offload, without which the model does not fit")
    plain = {"forward": forward(bench, setup, 4), "update": update(bench, setup)}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        if not compile_blocks(setup.policy.network, bench.card.device):
            raise Skipped("torch.compile does not work on this machine")
        cold = bench.card.seconds(lambda: (forward(bench, setup, 4, 1), update(bench, setup, 1)))
        yield Value("until both are compiled", cold, "s")
        counters = torch._dynamo.utils.counters
        yield Value("graphs", float(counters["stats"]["unique_graphs"]), low=1, high=GRAPHS)
        yield Value("graph breaks", float(sum(counters["graph_break"].values())), high=0)
        yield Value("forward", forward(bench, setup, 4) / plain["forward"], "of plain", **saved(bench))
        yield Value("update", update(bench, setup) / plain["update"], "of plain", **saved(bench))
    finally:
        uncompile(setup.policy.network)
        torch._dynamo.reset()


def saved(bench: Bench) -> Bounds:
    return bench.card.on_h200(0.65, 0.85) or {"high": 1.0}


def uncompile(module: nn.Module) -> None:
    """As before `compile_blocks`: the next checks use the same model."""
    for block in blocks(module):
        block._compiled_call_impl = None


def update(bench: Bench, setup: Setup, repeats: int = 2) -> float:
    """Seconds of a forward pass with gradient and its backward pass."""
    x, sigma, rows = latents(setup, 4)
    velocity = policy_velocity(setup, [0], 4)

    def both() -> None:
        velocity(x, sigma, rows).backward(x)
        for parameter in setup.lora.values():
            parameter.grad = None

    both()
    return bench.card.seconds(both, repeats)
