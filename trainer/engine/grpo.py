"""One iteration: the only file that joins the stages, in the order of the data flow.

    prompts -> noise -> rollout -> decode -> reward -> advantages -> anchors -> surrogate -> update

Departures from the paper, each a setting: the softmax temperature is scale-free (`surrogate.softmax_temperature`), the
LoRA alone is trained, and a group without advantages is not passed through the model at all.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings.config import Config
from ..stages.advantages import quasi_norm_reweight
from ..stages.anchors import Pairs, draw_pairs, draw_steps
from ..stages.combine import Combined, combine
from ..stages.noise import derive_seed, neighborhood
from ..stages.prompts import prompt_order
from ..stages.rollout import Trajectories
from ..stages.surrogate import softmax_temperature
from ..stages.update import LOSS_SCALE, PairMetrics, accumulate_gradient, step_optimizer, warmed_up
from .drawing import Clock, conditioning_of, decode_all, policy_velocity, score_pictures, solve
from .state import Setup, State

NOISE, STEPS, PAIRS = 1, 2, 3  # streams of random numbers; setup.py and state.py have others
ALIKE = "no group has rewards that differ"  # why an update is skipped: by chance, and by no fault


@dataclass(frozen=True)
class Candidates:
    """Stages 1 to 3: the neighborhoods of P prompts, where they led, and the pictures."""

    prompts: list[int]  # P, into config.prompts
    seeds: list[int]  # P, of each neighborhood
    trajectories: Trajectories  # of P * G candidates
    images: Tensor  # [P * G, 3, H, W]

    def texts(self, config: Config) -> list[str]:
        """The prompt of each candidate, [P * G]."""
        return [config.prompts[p] for p in self.prompts for _ in range(config.grpo.group_size)]


@dataclass(frozen=True)
class Group:
    """Stages 4 and 5: what the candidates are worth."""

    candidates: Candidates
    scores: dict[str, Tensor]  # [P, G] each
    combined: Combined  # A, [P, G]
    advantages: Tensor  # A', [P, G]


def collect(setup: Setup, iteration: int, clock: Clock) -> Group:
    """Stages 1 to 5 of one iteration: neighborhoods, trajectories, pictures, scores, advantages."""
    candidates = sample_candidates(setup, iteration, trained_steps(setup, iteration), clock)
    with clock.phase("reward"):
        scores = score(setup, candidates)
    return judge(setup.config, candidates, scores)


def trained_steps(setup: Setup, iteration: int) -> list[int]:
    """The K steps whose turn it is."""
    config = setup.config
    generator = _generator(STEPS, config.run.seed, iteration)
    return draw_steps(config.sampling.steps, config.grpo.trained_steps, generator=generator)


def sample_candidates(setup: Setup, iteration: int, keep: Sequence[int], clock: Clock) -> Candidates:
    """Stages 1 to 3 for the prompts whose turn it is; `keep` are the steps whose states are stored."""
    config, geometry = setup.config, setup.geometry
    grpo, seed = config.grpo, config.run.seed
    prompts = prompt_order(len(config.prompts), seed, iteration, grpo.prompts_per_iteration)
    seeds = [derive_seed(NOISE, seed, iteration, slot) for slot in range(len(prompts))]
    with clock.phase("rollout"):
        noise = [neighborhood(s, geometry.latent_shape, grpo.strength, grpo.group_size) for s in seeds]
        trajectories = solve(setup, prompts, conditioning_of(setup, prompts), torch.cat(noise), keep)
    with clock.phase("decode"):
        images = decode_all(setup, trajectories.x_0)
    return Candidates(prompts, seeds, trajectories, images)


def score(setup: Setup, candidates: Candidates) -> dict[str, Tensor]:
    """Stage 4: every reward's scores, [P, G] each."""
    group_size = setup.config.grpo.group_size
    scores = score_pictures(setup, candidates.images, candidates.texts(setup.config))
    return {name: values.view(-1, group_size) for name, values in scores.items()}


def judge(config: Config, candidates: Candidates, scores: dict[str, Tensor]) -> Group:
    """Stage 5: advantages of the trained rewards."""
    combined = combine(scores, config.weights, config.grpo.reward_normalisation, config.clips)
    return Group(candidates, scores, combined, quasi_norm_reweight(combined.advantages, config.grpo.quasi_norm))


def draw(setup: Setup, group: Group, iteration: int) -> Pairs:
    """Stage 6a: the drawn triples, on the CPU, those of uninformative groups left out."""
    grpo = setup.config.grpo
    prompts, group_size = group.advantages.shape
    generator = _generator(PAIRS, setup.config.run.seed, iteration)
    pairs = draw_pairs(prompts, group_size, grpo.anchors, grpo.trained_steps, generator=generator)
    return pairs.only(group.combined.informative.cpu())


def improve(setup: Setup, state: State, group: Group, pairs: Pairs) -> tuple[dict[str, float], str]:
    """Stages 6b and 7: `updates_per_rollout` optimiser steps on the pairs.

    Returns the metrics, and why an update was skipped (empty where none was).
    """
    grpo, optimizer, trajectories = setup.config.grpo, setup.config.optimizer, group.candidates.trajectories
    if len(pairs) == 0:
        finite = all(group.scores[name].isfinite().all() for name in setup.config.weights)
        return {}, ALIKE if finite else "a reward was not a finite number"

    prompts, group_size = group.advantages.shape
    candidates = trajectories.inside(trajectories.x_next).unflatten(1, (prompts, group_size))  # [K, P, G, *latent]
    tau = torch.stack([softmax_temperature(c, grpo.temperature, grpo.temperature_mode) for c in candidates])
    pairs = pairs.to(setup.policy.device)

    def gradient(micro_batch: int) -> PairMetrics:
        state.optimizer.zero_grad(set_to_none=True)  # of an attempt that ran out of memory
        velocity = policy_velocity(setup, group.candidates.prompts, micro_batch)

        def reference(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
            with setup.policy.reference():
                return velocity(x, sigma, rows)

        return accumulate_gradient(
            velocity,
            trajectories,
            pairs,
            group.advantages,
            tau,
            clip=grpo.clip,
            micro_batch=micro_batch,
            normaliser=prompts * grpo.anchors * grpo.trained_steps,
            reference=reference,
            kl_weight=grpo.kl_weight,
            loss_scale=LOSS_SCALE,
        )

    skipped, measured, norms = "", [], []
    for _ in range(grpo.updates_per_rollout):
        measured.append(setup.micro_batch.fit("update", gradient))
        lr = warmed_up(optimizer.learning_rate, state.updates, optimizer.warmup)
        norm, applied = step_optimizer(
            state.optimizer, state.gradients, max_ratio=optimizer.max_grad_ratio, lr=lr, loss_scale=LOSS_SCALE
        )
        norms.append(norm)
        if applied:
            state.updates += 1
            state.average.update(setup.lora)
        else:
            skipped = "the gradient was not finite"
    return {"learning_rate": lr, "grad_norm": max(norms), **_read(measured)}, skipped


@contextmanager
def all_or_nothing(setup: Setup, state: State) -> Iterator[None]:
    """An iteration that an exception cuts short leaves weights, optimiser and average as they were before it.

    Nothing but the optimiser's steps changes them, so a copy is kept only where there are several in an iteration.
    """
    restore = _remember(setup, state) if setup.config.grpo.updates_per_rollout > 1 else lambda: None
    try:
        yield
    except BaseException:
        state.optimizer.zero_grad(set_to_none=True)
        restore()
        raise


def _remember(setup: Setup, state: State) -> Callable[[], None]:
    weights = {name: p.detach().clone() for name, p in setup.lora.items()}
    optimizer = copy.deepcopy(state.optimizer.state_dict())
    shadow = {name: p.clone() for name, p in state.average.shadow.items()}
    counters, gradients = (state.updates, state.average.updates), copy.deepcopy(state.gradients)

    def restore() -> None:
        with torch.no_grad():
            for name, p in setup.lora.items():
                p.copy_(weights[name])
        state.optimizer.load_state_dict(optimizer)
        state.average.shadow = shadow
        state.updates, state.average.updates = counters
        state.gradients = gradients

    return restore


def _read(measured: Sequence[PairMetrics]) -> dict[str, float]:
    """Metrics of an iteration's updates: the errors are those at the start, the others of the last update."""
    first, last = measured[0], measured[-1]
    values = {
        "loss": last.loss,
        "clip_fraction": last.clip_fraction,
        "kl_old": last.kl_old,
        "kl_reference": last.kl_reference,
        "ratio_error": first.ratio_error,
        "velocity_error": first.velocity_error,
    }
    if len(measured) > 1:  # how far the policy has moved since the rollout
        values["velocity_shift"] = last.velocity_error
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def _generator(*path: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*path))
