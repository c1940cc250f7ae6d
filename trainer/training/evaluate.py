"""Pictures beside the training, of fixed prompts and seeds: scored, and compared with the base model's."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..engine.drawing import decode_all, score_pictures, solve
from ..engine.state import Setup
from ..events import Evaluated
from ..models.conditioning import Conditioning
from ..stages.noise import base_noise

UNSEEN = 1_000_000  # first seed of the noises on which a LoRA is compared with its base model


@dataclass(frozen=True)
class Samples:
    """Pictures [N, 3, H, W] and each reward's scores [N]."""

    images: Tensor
    scores: dict[str, Tensor]


@dataclass(frozen=True)
class Difference:
    """Mean before and after, and the mean paired difference with its standard error."""

    before: float
    after: float
    difference: float
    standard_error: float

    @property
    def rise(self) -> float:
        """The difference in standard errors."""
        return (
            self.difference / self.standard_error if self.standard_error else math.copysign(math.inf, self.difference)
        )

    def to_dict(self) -> dict[str, float]:
        return {**asdict(self), "rise": self.rise}


def sample(setup: Setup, conditioning: Conditioning, prompts: Sequence[str], seeds: Sequence[int]) -> Samples:
    """One picture for each (prompt, seed) pair, by the same solver as in training and in parts as large.

    Args:
        conditioning: of `prompts`, in their order.
        seeds: as many as prompts.
    """
    inits, parts = init_of(setup, prompts), []
    at_once = setup.config.grpo.prompts_per_iteration * setup.config.grpo.group_size  # an iteration holds as many
    for start in range(0, len(prompts), at_once):
        part = slice(start, start + at_once)
        parts.append(pictures_of(setup, conditioning[part], seeds[part], inits[part]).cpu())
    images = torch.cat(parts)
    scores = score_pictures(setup, images, prompts)
    return Samples(images, {name: values.cpu() for name, values in scores.items()})


def both(setup: Setup, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Samples, Samples]:
    """The base model's pictures and the LoRA's, for the same prompts and seeds.

    `setup.config.prompts` must contain the prompts.
    """
    rows = [setup.config.prompts.index(p) for p in prompts]
    conditioning = setup.conditioning[rows]
    with setup.policy.reference():
        before = sample(setup, conditioning, prompts, seeds)
    return before, sample(setup, conditioning, prompts, seeds)


def init_of(setup: Setup, texts: Sequence[str]) -> list[int]:
    """The prompts, counted in config.prompts, whose init pictures of these texts begin from; 0 for any other text."""
    known = setup.config.prompts
    return [known.index(text) if text in known else 0 for text in texts]


def pictures_of(setup: Setup, conditioning: Conditioning, seeds: Sequence[int], prompts: Sequence[int]) -> Tensor:
    """One picture for each row of `conditioning` from the noise of its seed, [N, 3, H, W] on the policy's device.

    `prompts`, as many, are those of config.prompts whose init they begin from, if there is one.
    """
    noise = torch.stack([base_noise(setup.geometry.latent_shape, seed) for seed in seeds])
    return decode_all(setup, solve(setup, prompts, conditioning, noise, setup.solver).x_0)


def evaluate(setup: Setup, iteration: int) -> Evaluated:
    """Pictures of the evaluation prompts after `iteration` iterations, each from the noise whose seed is its number.

    The seeds are the same in every run, so that runs can be compared picture by picture.
    """
    if setup.evaluation is None:
        raise ValueError("evaluation.prompts = []: there is nothing to draw")
    prompts = list(setup.config.evaluation.prompts)
    seeds = list(range(len(prompts)))
    samples = sample(setup, setup.evaluation, prompts, seeds)
    return Evaluated(iteration, prompts, seeds, samples.scores, samples.images)


def compare(before: Tensor, after: Tensor) -> Difference:
    """Paired comparison of scores [N] on the same prompts and seeds, N at least 2."""
    paired = (after - before).double()
    error = paired.std(correction=1) / math.sqrt(len(paired))
    return Difference(float(before.mean()), float(after.mean()), float(paired.mean()), float(error))
