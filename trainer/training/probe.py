"""Before a run: the strength at which different prompts ask for the same change of the LoRA.

Prompts' gradients add up as far as they have one direction, and AdamW's steps are as long as they do. Neighbours that
are too near differ by what no reward tells apart, others are too far for what one base noise has in common: either way
little is left but chance, and the gradients' directions have nothing to do with each other.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count

import torch
from torch import Tensor

from ..choices import PROBED
from ..engine.drawing import Clock
from ..engine.grpo import Group, collect, gradient, pairs_of
from ..engine.keeping import Keeping
from ..engine.state import Setup
from ..events import Probed
from ..settings.config import Config
from ..stages.anchors import Pairs

FAR = 10**9  # number of the first of its iterations: their random numbers are no others'


def probe(setup: Setup, iteration: int, between: Callable[[], None] = lambda: None) -> Probed:
    """Every strength on `grpo.probe` groups, the same prompts and base noises for all; nothing is learnt.

    `between` is called before each of its iterations, and may end it by an exception.
    """
    # what is held has no gradient before the first update
    found = {s: agreement(setup.under(at(setup.config, s, hold=0.0)), between) for s in PROBED}
    known = {s: value for s, value in found.items() if math.isfinite(value)}
    return Probed(iteration, found, max(known, key=lambda s: known[s]) if known else setup.config.grpo.strength)


def at(config: Config, strength: float, hold: float) -> Config:
    return replace(config, grpo=replace(config.grpo, strength=strength, hold=hold))


def agreement(setup: Setup, between: Callable[[], None] = lambda: None) -> float:
    """Mean cosine of two groups' gradients, of `grpo.probe` groups: 1 one direction, 0 chance.

    nan if fewer than two of them had rewards that differ.
    """
    weights = setup.config.weights
    rewards = {name: reward for name, reward in setup.rewards.items() if name in weights}
    setup = replace(setup, rewards=rewards, keeping=Keeping(False))
    total: Tensor | None = None
    groups, left = 0, setup.config.grpo.probe
    for iteration in count(FAR):
        if left <= 0:
            break
        between()
        sized = setup.sized(iteration)
        group = collect(sized, iteration, Clock(setup.policy.device))
        for direction in directions(sized, group, pairs_of(sized, group, iteration), left):
            total = direction if total is None else total + direction
            groups += 1
        left -= len(group.advantages)
    if total is None or groups < 2:
        return math.nan
    return (total.square().sum().item() - groups) / (groups * (groups - 1))


def directions(setup: Setup, group: Group, pairs: Pairs, most: int) -> Iterator[Tensor]:
    """Gradients of the first `most` prompts, each alone and of length 1; none of those without advantages."""
    candidates = group.candidates
    loss_of = setup.objective.prepare(candidates.trajectories, group.advantages)

    def of(mine: Pairs, micro_batch: int) -> Tensor:
        for p in setup.lora.values():
            p.grad = None
        gradient(setup, candidates, mine, loss_of, micro_batch)
        whole = torch.cat([p.grad.flatten().float() for p in setup.lora.values() if p.grad is not None])
        return whole / whole.norm()

    try:
        for prompt in range(min(most, len(candidates.prompts))):
            mine = pairs.only(torch.arange(len(candidates.prompts)) == prompt)
            if len(mine):
                yield setup.micro_batch.fit("update", partial(of, mine))
    finally:
        for p in setup.lora.values():
            p.grad = None
