"""What a loaded model can do: solve, decode, score, and say its velocity."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..device import synchronize
from ..models.conditioning import Conditioning
from ..models.family import Keeper
from ..models.storage.compiling import is_compiled
from ..rewards.base import Reward, check_images, on_device, scores_of
from ..stages.decode import decode
from ..stages.inpainting import Unmasked
from ..stages.noise import partly_noised
from ..stages.rollout import Around, BatchVelocity, Trajectories, micro_batched, plainly, rollout
from ..stages.solvers import Solver
from .state import Setup


@dataclass
class Clock:
    """Seconds of each phase."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start


def begin(setup: Setup, prompts: Sequence[int], noise: Tensor) -> tuple[Tensor, Tensor, Unmasked | None]:
    """Where trajectories begin, packed [N, *latent], which of `prompts` each has, [N], and what inpainting keeps."""
    geometry, device = setup.geometry, setup.policy.device
    rows = torch.arange(len(prompts), device=device).repeat_interleave(len(noise) // len(prompts))
    eps = geometry.pack(noise.to(device))
    if setup.init is None:
        return eps, rows, None
    z = geometry.pack(setup.init.of(prompts).to(device).latents.to(eps.dtype))[rows]
    mask = setup.init.mask
    unmasked = None if mask is None else Unmasked.of(geometry.pack_mask(mask), z, eps)
    return partly_noised(z, eps, setup.sigmas[0].item()), rows, unmasked


def solve(
    setup: Setup,
    prompts: Sequence[int],
    conditioning: Conditioning,
    noise: Tensor,
    solver: Solver,
    kept: Sequence[int] = (),
    seed: int = 0,
    keeper: Keeper | None = None,
    *,
    filled: bool = True,
) -> Trajectories:
    """Stage 2: trajectories from noise [N, *latent_shape] or, with an init, from what it noises.

    Args:
        prompts: those whose init it is. Each has N / len(prompts) trajectories, one prompt's after the other's.
        conditioning: a row for each of them.
        kept: the steps whose states are stored.
        seed: of the random numbers of a solver that draws some.
        keeper: told of each model call, as long as anything is kept.
        filled: whether batches with kept states are filled up, as the update's are: the ratio is exactly 1 then.
    """
    x, rows, unmasked = begin(setup, prompts, noise)

    def run(size: int) -> Trajectories:
        on_grid = getattr(solver, "on_grid", False)
        told = conditioning.at(setup.sigmas.tolist()[:-1]) if on_grid else conditioning
        full = filled and bool(kept) and size == setup.micro_batch.size
        around = plainly
        if keeper is not None and setup.keeping.on:
            keeper.clear()  # of an attempt that ran out of memory
            around = keeper.filling
        velocity = velocity_of(setup, told, prompts, size, filled=full, around=around)
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers for every device
        return rollout(velocity, x, rows, setup.sigmas, solver, kept, unmasked, generator)

    return setup.rollout_batch.fit("rollout", run)


def decode_all(setup: Setup, x_0: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] of packed latents [N, *latent]."""

    def run(micro_batch: int) -> Tensor:
        # a policy of one's own need not have it
        with getattr(setup.policy, "decoding", nullcontext)():
            return decode(lambda part: setup.policy.decode(part, setup.geometry), x_0, micro_batch)

    return setup.micro_batch.fit("decoding", run)


def score_pictures(setup: Setup, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
    """Every reward's scores of pictures [N, 3, H, W], which may wait on the host, and their N prompts, [N] each.

    One reward after the other: a device that runs full redoes that reward alone, with half as many pictures at once.
    """
    check_images(images, texts)
    device, stay = setup.policy.device, not setup.config.run.offload_rewards
    scores = {}
    for name, reward in setup.rewards.items():
        with on_device([reward], device, stay=stay):
            score = partial(_score, name, reward, images, texts, device)
            scores[name] = setup.scored_at_once.fit("reward", score)
    return scores


def _score(
    name: str, reward: Reward, images: Tensor, texts: Sequence[str], device: torch.device, at_once: int
) -> Tensor:
    parts = [slice(start, start + at_once) for start in range(0, len(images), at_once)]
    return torch.cat([scores_of(name, reward, images[part].to(device), texts[part]) for part in parts])


def policy_velocity(setup: Setup, prompts: Sequence[int], micro_batch: int, *, filled: bool = True) -> BatchVelocity:
    """The policy for the given prompts (rows count within them), see `micro_batched`.

    It answers at the sigmas of the setup's grid alone: what hangs on them is computed once, see `Conditioning.sigmas`.
    """
    told = conditioning_of(setup, prompts).at(setup.sigmas.tolist()[:-1])
    return velocity_of(setup, told, prompts, micro_batch, filled=filled)


def velocity_of(
    setup: Setup,
    conditioning: Conditioning,
    prompts: Sequence[int],
    micro_batch: int,
    *,
    filled: bool,
    around: Around = plainly,
) -> BatchVelocity:
    """The policy for the rows of `conditioning`, with the init of as many `prompts`.

    Compiled blocks get batches of one size, filled up or not: for another they would be compiled once more.
    """
    filled = filled or is_compiled(setup.policy.network)
    if setup.init is not None:
        conditioning = conditioning.beside(setup.init.of(prompts).seen)
    velocity = setup.policy.velocity(conditioning, setup.geometry)
    return micro_batched(velocity, micro_batch, filled=filled, around=around)


def conditioning_of(setup: Setup, prompts: Sequence[int]) -> Conditioning:
    return setup.conditioning[list(prompts)]
