"""What every check is given: the card, the sizes, the planner's counts, models that are loaded once for several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...engine.drawing import Clock
from ...engine.grpo import Group, collect, improve, pairs_of
from ...engine.setup import assemble
from ...engine.state import Setup, State
from ...models.storage.placement import DTYPES
from ...planning.advice import RESERVE
from ...planning.rewards import model_dtype
from ...settings.config import (
    Config,
    GrpoSettings,
    LoraSettings,
    ModelSettings,
    RewardSettings,
    RunSettings,
    SamplingSettings,
)
from ..latents import random_latents
from .card import GIB, Card
from .counts import LOADED, Case, Counts
from .models import random_reward, random_setup
from .results import Result, Skipped
from .sizes import Sizes

Loaded = tuple[tuple[str, float], Setup]  # of which memory plan
# runs checks of these numbers in another process, with an environment of its own; their results as JSON
Again = Callable[[Sequence[int], Mapping[str, str]], list[dict[str, Any]]]
PLANS = (("bf16", 0.0), ("fp8", 0.0), ("fp8", 1.0))  # from the fastest to the smallest


@dataclass
class Bench:
    """One run of the checks."""

    card: Card
    sizes: Sizes
    counts: Counts
    again: Again = lambda *_: []
    results: dict[int, Result] = field(default_factory=dict)
    loaded: Loaded | None = None

    def config(self, case: Case, **grpo: Any) -> Config:
        """A run's settings for a case: the planner's example, FLUX.1-dev rewarded by HPSv2.1."""
        sizes = self.sizes
        steps = grpo.pop("steps", sizes.steps)
        grpo = {"group_size": sizes.group, **grpo}
        device = str(self.card.device)
        return Config(
            ModelSettings(sizes.path, device, sizes.dtype, memory=case.memory, offload=case.offload),
            prompts=("a red fox in the snow",),
            rewards=(RewardSettings(sizes.reward),),
            lora=LoraSettings(),
            sampling=SamplingSettings(case.pixels, case.pixels, steps),
            grpo=GrpoSettings(**grpo),
            run=RunSettings(
                "",
                micro_batch=case.micro_batch,
                rollout_batch=case.micro_batch,
                offload_rewards=True,
                base_every=0,
                tiles_every=0,
            ),
        )

    @property
    def draw_on(self) -> torch.device:
        return self.card.device if self.sizes.drawn_on_device else torch.device("cpu")

    def full(self, case: Case, **grpo: Any) -> Setup:
        """The full-size model by the case's plan, loaded unless it is the one that the last check had.

        Raises:
            Skipped: the planner's count of it is not free on this card.
        """
        config, plan = self.config(case, **grpo), (case.memory, case.offload)
        self.require_room(case)
        if self.loaded is None or self.loaded[0] != plan:
            self.drop()
            reward = random_reward(self.sizes.reward, str(self.card.device), self.reward_dtype, self.draw_on)
            setup = random_setup(config, {config.rewards[0].label: reward}, draw_on=self.draw_on)
            self.loaded = plan, setup
        setup = self.loaded[1]
        return assemble(config, setup.policy, setup.lora, setup.conditioning, setup.rewards)

    @property
    def reward_dtype(self) -> torch.dtype:
        return model_dtype(RewardSettings(self.sizes.reward), str(self.card.device))

    def few(self, case: Case, **grpo: Any) -> Setup:
        """A few blocks of the full width: the caller's alone, and gone with it."""
        config = self.config(case, **grpo)
        reward = Ranking()
        return random_setup(config, {config.rewards[0].label: reward}, draw_on=self.draw_on, changes=self.sizes.blocks)

    def require_room(self, case: Case) -> None:
        free = self.card.free()
        if free is None:
            return
        if self.loaded is not None:  # it will be dropped, or is the one that is asked for
            free += self.card.allocated()
        counted = self.counts.of(case, self.config(case))
        needed = max(counted[phase] for phase in LOADED) / GIB + RESERVE
        if needed > free / GIB:
            raise Skipped(f"{case} needs {needed:.1f} GiB, {free / GIB:.1f} are free")

    def best(self, **grpo: Any) -> tuple[Case, Setup]:
        """The full-size model by the first plan that fits, at the usual size and micro-batch.

        Raises:
            Skipped: none fits.
        """
        for memory, offload in PLANS:
            case = Case(memory, offload, self.sizes.pixels, 4)
            try:
                return case, self.full(case, **grpo)
            except Skipped as error:
                reason = error
        raise reason

    def drop(self) -> None:
        """Let go of the loaded model."""
        self.loaded = None
        self.card.release()


class Ranking:
    """A user's reward that looks at no picture and answers on the host: the same scores on every device."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.rand(len(images), generator=torch.Generator().manual_seed(len(images)))


def iterate(setup: Setup, state: State, clock: Clock, iteration: int = 0) -> Group:
    """One iteration by the run's own functions, its phases told to `clock`."""
    group = collect(setup, iteration, clock)
    pairs = pairs_of(setup, group, iteration)
    with clock.phase("update"):
        improve(setup, state, group, pairs)
    return group


def latents(setup: Setup, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [count, tokens, 64], sigma [count] and rows [count] for a velocity; the same numbers on every device."""
    generator = torch.Generator().manual_seed(3)
    x = random_latents(setup.geometry, count, generator)
    sigma = setup.sigmas[torch.arange(count) % (len(setup.sigmas) - 1)].float()
    rows = torch.zeros(count, dtype=torch.int64)
    device = setup.policy.device
    return x.to(device), sigma.to(device), rows.to(device)


def gradient(setup: Setup) -> Tensor:
    """The LoRA's, on the CPU."""
    return torch.cat([p.grad.float().cpu().flatten() for p in setup.lora.values() if p.grad is not None])


def relative(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, in float64 on the CPU."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm())


def dtype_of(sizes: Sizes) -> torch.dtype:
    return DTYPES[sizes.dtype]
