"""What an iteration of each method costs, beside the passes through the transformer that it makes."""

import statistics
from collections.abc import Sequence

import torch

from ..engine.state import Setup, new_state
from ..events import Event
from ..experiments.bench import Bench, Stopwatch
from ..experiments.tasks import preset
from ..training.loop import iterate

METHODS = {
    "defaults": [preset("defaults")],
    "composition": [preset("composition")],
    "paper": [preset("paper")],
    "Flow-GRPO in 4 steps": [preset("flow-grpo-cheap")],
    "Flow-GRPO": [preset("flow-grpo")],
    "DanceGRPO": [preset("dance-grpo")],
    "DanceGRPO, 14 of 25 steps": [preset("dance-grpo"), "sampling.steps=25", "grpo.trained_steps=14"],
    "MixGRPO": [preset("mix-grpo")],
    "DiffusionNFT": [preset("nft")],
}


def measure(bench: Bench, rounds: int) -> list[dict[str, object]]:
    """An iteration of every method in turn, `rounds` times after one that does not count.

    Seconds are the process's own on a CPU, a device's by the clock. Each ratio is to the first method in the same
    round.
    """
    names, passes = list(METHODS), {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        for name in names:
            setup = bench.setup(bench.task.config([*bench.overrides, *METHODS[name]]))
            passes[name] = passes_of(setup)
            taken = one(setup)
            if turn >= 0:
                seconds[name].append(taken)
    return [
        {
            "method": name,
            "seconds": statistics.median(seconds[name]),
            **ratios(seconds[name], seconds[names[0]]),
            "passes": passes[name],
            "passes_ratio": passes[name] / passes[names[0]],
        }
        for name in names
    ]


def one(setup: Setup) -> float:
    """Seconds of one iteration of a new LoRA."""
    state, watch = new_state(setup), Stopwatch(setup.policy.device)
    with watch:
        iterate(setup, state, unheard)
    return watch.seconds


def unheard(event: Event) -> None:
    pass


def ratios(mine: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    pairs = [a / b for a, b in zip(mine, others, strict=True)]
    return {"ratio": statistics.median(pairs), "lowest_ratio": min(pairs), "highest_ratio": max(pairs)}


def passes_of(setup: Setup) -> int:
    """Of a picture through the transformer, forward or backward: as dear, since no frozen weight has a gradient."""
    config, objective = setup.config, setup.objective
    prompts, generator = config.grpo.prompts_per_iteration, torch.Generator().manual_seed(0)
    kept = objective.steps(generator=generator)
    rollout = prompts * config.grpo.group_size * objective.solver(kept).evaluations(config.sampling.steps)
    shares = objective.shares(objective.pairs(prompts, generator=generator), config.grpo.updates_per_rollout)
    trained = sum(map(len, shares))
    at_once = (
        config.updated_steps if config.grpo.hold and not config.grpo.kl_weight else 1
    )  # the reference: one of them
    return rollout + trained * 2 + objective.needs_reference * trained // at_once


def table(rows: Sequence[dict[str, object]]) -> str:
    lines = ["| method | seconds | to the defaults | passes | to the defaults |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['method']} | {r['seconds']:.2f} | {r['ratio']:.2f} ({r['lowest_ratio']:.2f} to "
        f"{r['highest_ratio']:.2f}) | {r['passes']} | {r['passes_ratio']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)
