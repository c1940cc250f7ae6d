"""What an objective is, and which there are."""

from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from ..choices import OBJECTIVES
from ..plugins import is_own, load
from ..settings.config import Config, GrpoSettings
from ..stages.anchors import Pairs, choose_pairs
from ..stages.rollout import Trajectories
from ..stages.solvers import Solver
from ..stages.update import Loss


class Objective(Protocol):
    """From noise to the loss. It is made of a run's Config and holds nothing that changes."""

    needs_reference: bool  # whether its loss asks for the velocity without the LoRA

    def solver(self, kept: list[int]) -> Solver:
        """What draws the candidates, if these of the T steps are kept for the update.

        One that has `renoises = True` yields states for the update that it did not pass through.
        """

    def noise(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        """What the G candidates of one prompt begin from, [G, *shape] on the CPU; the same seed gives the same."""

    def steps(self, *, generator: torch.Generator) -> list[int]:
        """The K of the T steps that are trained in an iteration, ascending."""

    def pairs(self, prompts: int, *, generator: torch.Generator) -> Pairs:
        """The trained (prompt, candidate, step) triples of P prompts, on the CPU; steps count among the K."""

    def shares(self, pairs: Pairs, updates: int) -> list[Pairs]:
        """The pairs of each of an iteration's updates: all of them each time, or a share of its own."""

    def prepare(self, trajectories: Trajectories, advantages: Tensor) -> Loss:
        """The loss of an iteration's pairs.

        Args:
            trajectories: of the P * G candidates, with the K steps.
            advantages: A', [P, G], on their device.
        """


def pairs_of(grpo: GrpoSettings, prompts: int, steps: int, *, generator: torch.Generator) -> Pairs:
    """B of the G candidates of each prompt at each of the K kept steps, as the settings say."""
    return choose_pairs(prompts, grpo.group_size, grpo.anchors, steps, pairing=grpo.pairing, generator=generator)


def objective_of(config: Config) -> Objective:
    """The objective that `grpo.objective` names: a key of OBJECTIVES, or "package.module:Class" of the user's own.

    Raises:
        ConfigError: see `plugins.load`.
    """
    name = config.grpo.objective
    if is_own(name):
        return load(name, "prepare")(config)
    module, _, cls = OBJECTIVES[name].partition(":")
    return getattr(import_module(f".{module}", __package__), cls)(config)
