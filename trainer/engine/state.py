"""What a run has: everything it needs, loaded, and what changes while it trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..events import Change
from ..models.conditioning import Conditioning
from ..models.family import Geometry, Policy
from ..models.lora.attach import set_weights
from ..objectives.objective import Objective, objective_of
from ..rewards.base import Reward
from ..settings.config import Config, OptimizerSettings
from ..stages.inpainting import Init
from ..stages.noise import derive_seed
from ..stages.prompts import prompt_order
from ..stages.schedule import jittered
from ..stages.solvers import Solver, solver_of
from ..stages.update import Ema, GradientHistory, make_optimizer
from .keeping import Keeping
from .micro_batch import MicroBatch

SIZES, GRID = 5, 7  # streams of random numbers, beside those of grpo.py and setup.py


@dataclass(frozen=True)
class Canvas:
    """What pictures of one size are drawn on."""

    geometry: Geometry
    sigmas: Tensor  # [T + 1]; FLUX.1-dev's depend on the size
    init: Init | None = None  # what image-to-image and inpainting begin from


@dataclass(frozen=True)
class Setup:
    """Everything a run needs, loaded."""

    config: Config
    policy: Policy
    lora: Mapping[str, nn.Parameter]
    conditioning: Conditioning  # of config.prompts
    rewards: Mapping[str, Reward]
    canvases: tuple[Canvas, ...]  # of config.sampling.all_sizes
    canvas: Canvas  # the one that is drawn on
    objective: Objective
    micro_batch: MicroBatch  # of the update and the decoding: config.run.micro_batch, or fewer if memory ran out
    rollout_batch: MicroBatch  # of the rollout
    scored_at_once: MicroBatch  # pictures that a reward gets at once
    keeping: Keeping = field(default_factory=Keeping)  # of what the first update would compute again
    evaluation: Conditioning | None = None  # of config.evaluation.prompts, if there are some

    @property
    def geometry(self) -> Geometry:
        return self.canvas.geometry

    @property
    def sigmas(self) -> Tensor:
        return self.canvas.sigmas

    @property
    def init(self) -> Init | None:
        return self.canvas.init

    @property
    def solver(self) -> Solver:
        """Of the ODE: what pictures beside the training are drawn by."""
        return solver_of(self.config.sampling.solver)

    def under(self, config: Config) -> "Setup":
        """The same parts under other settings, of the objective alone."""
        return replace(self, config=config, objective=objective_of(config))

    def sized(self, iteration: int) -> "Setup":
        """The setup of an iteration: with the size whose turn it is (all in turn, shuffled), on a grid that jitters."""
        seed, share = self.config.run.seed, self.config.sampling.jitter
        (place,) = prompt_order(len(self.canvases), derive_seed(SIZES, seed), iteration, 1)
        canvas = self.canvases[place]
        if share:
            generator = torch.Generator().manual_seed(derive_seed(GRID, seed, iteration))
            canvas = replace(canvas, sigmas=jittered(canvas.sigmas, share, generator=generator))
        return replace(self, canvas=canvas)


@dataclass
class State:
    """What changes while training."""

    optimizer: torch.optim.Optimizer
    average: Ema
    iteration: int = 0  # iterations done
    updates: int = 0  # optimiser steps done
    skipped_in_row: int = 0  # groups, see `loop.PATIENCE`
    gradients: GradientHistory = field(default_factory=GradientHistory)
    changes: list[Change] = field(default_factory=list)  # that a person made, in the order of their iterations
    whole: bool = True  # not amid an update: it may be saved


def new_state(setup: Setup) -> State:
    o = setup.config.optimizer
    parameters = list(setup.lora.values())
    optimizer = make_optimizer(parameters, lr=o.learning_rate, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay)
    return State(optimizer, Ema(setup.lora, o.ema_decay))


@contextmanager
def as_exported(setup: Setup, state: State) -> Iterator[None]:
    """Inside, the LoRA's weights are those that are exported: their average, if one is kept."""
    if not state.average.decay:
        yield
        return
    own = {name: p.detach().clone() for name, p in setup.lora.items()}
    set_weights(setup.lora, state.average.shadow)
    try:
        yield
    finally:
        set_weights(setup.lora, own)


def set_optimizer(state: State, settings: OptimizerSettings) -> None:
    """Other settings for an optimiser that is under way; the learning rate is set at every step anyway."""
    for group in state.optimizer.param_groups:
        group.update(betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay)


def follow(state: State, device: torch.device) -> None:
    """Take the optimiser's moments and the average to `device`, where the LoRA has gone."""
    state.optimizer.load_state_dict(state.optimizer.state_dict())  # which puts each beside its parameter
    state.average.to(device)
