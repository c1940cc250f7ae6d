"""What an iteration costs beside its bare model calls."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..device import Device, synchronize
from ..engine.state import Setup, new_state
from ..rewards.base import on_device
from ..settings.config import Config
from ..store.writer import open_store
from ..training.loop import iterate
from ..training.prepare import prepare
from .latents import random_latents

Work = Callable[[], None]


def measure(config: Config, iterations: int) -> dict[str, float]:
    """Alternate whole iterations (with the run store writing) and as many bare model calls.

    Base noises are not drawn: their pictures, once in `run.base_every` iterations, are model calls of their own.

    Returns medians in seconds, and the median of the pairwise ratios.
    """
    setup = prepare(replace(config, run=replace(config.run, base_every=0)))
    pairs = alternating(setup, iterations, lambda work: _seconds(work, setup.policy.device))
    return {
        "iteration_seconds": statistics.median(a for a, _ in pairs),
        "bare_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "lowest_ratio": min(a / b for a, b in pairs),
        "highest_ratio": max(a / b for a, b in pairs),
        "iterations": iterations,
    }


def alternating(setup: Setup, pairs: int, seconds: Callable[[Work], float]) -> list[tuple[float, float]]:
    """`seconds` of (an iteration with the run store writing, its bare model calls), in turn, after one of each."""
    bare, state = bare_calls(setup), new_state(setup)
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder), setup.config.run.tiles_every) as store:

        def iteration() -> None:
            iterate(setup, state, store)
            state.iteration += 1

        for warm_up in (iteration, bare):
            warm_up()
        return [(seconds(iteration), seconds(bare)) for _ in range(pairs)]


def bare_calls(setup: Setup) -> Work:
    """The transformer, autoencoder and reward calls of one iteration, on random input and nothing around them."""
    config, policy, geometry = setup.config, setup.policy, setup.geometry
    grpo, size, at_once = config.grpo, setup.micro_batch.size, setup.rollout_batch.size
    candidates = grpo.prompts_per_iteration * grpo.group_size
    forwards = setup.objective.solver([]).evaluations(config.sampling.steps) * -(-candidates // at_once)
    backwards = -(-grpo.prompts_per_iteration * grpo.anchors * config.updated_steps // size)
    drawn, trained = _inputs(setup, at_once), _inputs(setup, size)
    x = trained[0]
    velocity = policy.velocity(setup.conditioning, geometry)
    stay = not config.run.offload_rewards
    texts = [config.prompts[i % len(config.prompts)] for i in range(candidates)]

    def run() -> None:
        with torch.no_grad():
            for _ in range(forwards):
                velocity(*drawn)
        for _ in range(backwards):
            velocity(*trained).backward(x)
        images = torch.cat(
            [policy.decode(part, geometry) for part in x.repeat(-(-candidates // size), 1, 1).split(size)]
        )
        for reward in setup.rewards.values():
            with on_device([reward], policy.device, stay=stay):
                reward.score(images[:candidates], texts)
        for parameter in setup.lora.values():
            parameter.grad = None

    return run


def _inputs(setup: Setup, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [count, *latent], sigma [count] and rows [count] for a velocity."""
    device = setup.policy.device
    sigma = torch.full((count,), 0.5, device=device)
    return (
        random_latents(setup.geometry, count).to(device),
        sigma,
        torch.arange(count, device=device) % len(setup.conditioning),
    )


def _seconds(work: Work, device: Device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def table(result: dict[str, float]) -> str:
    return (
        f"iteration {result['iteration_seconds']:.3f} s, its bare model calls {result['bare_seconds']:.3f} s: "
        f"ratio {result['ratio']:.3f} ({result['lowest_ratio']:.3f} to {result['highest_ratio']:.3f}, "
        f"median of {result['iterations']} pairs)"
    )
