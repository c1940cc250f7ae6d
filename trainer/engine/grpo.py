"""One iteration of group-relative policy optimisation, in the order of the data flow, whatever the objective.

    prompts -> noise -> rollout -> decode -> reward -> advantages -> anchors -> surrogate -> update

A group without advantages is not passed through the model at all.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..choices import BATCH
from ..device import Device
from ..models.family import Keeper, Place
from ..settings.config import Config
from ..stages.advantages import quasi_norm_reweight, relative_spread, softly_bounded
from ..stages.anchors import Pairs
from ..stages.combine import Combined, combine
from ..stages.noise import derive_seed
from ..stages.prompts import prompt_order
from ..stages.reliability import shifted, signal_share
from ..stages.rollout import BatchVelocity, Trajectories
from ..stages.solvers import Solver
from ..stages.update import (
    LOSS_SCALE,
    Around,
    Loss,
    PairMetrics,
    Referring,
    accumulate_gradient,
    effective_step,
    step_optimizer,
    warmed_up,
)
from .drawing import Clock, conditioning_of, decode_all, policy_velocity, score_pictures, solve
from .state import Setup, State

NOISE, STEPS, PAIRS, SOLVER = 1, 2, 3, 6  # streams of random numbers; setup.py and state.py have others
ALIKE = "no group has rewards that differ"  # why an update is skipped: by chance, and by no fault


@dataclass(frozen=True)
class Candidates:
    """Stages 1 to 3: the G candidates of each of P prompts, where they led, and the pictures."""

    prompts: list[int]  # P, into config.prompts
    seeds: list[int]  # P, of each prompt's noise
    trajectories: Trajectories  # of P * G candidates
    images: Tensor  # [P * G, 3, H, W]
    keeper: Keeper | None = None  # of what the rollout kept for the first update

    def to(self, device: Device) -> "Candidates":
        """On a device; what was kept for an update at once is left behind."""
        return replace(self, trajectories=self.trajectories.to(device), images=self.images.to(device), keeper=None)

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
    signal: float = 1.0  # share of the rewards' differences that is no noise, as far as it was measured


def collect(
    setup: Setup, iteration: int, clock: Clock, on_drawn: Callable[[Candidates], None] = lambda candidates: None
) -> Group:
    """Stages 1 to 5 of one iteration: noise, trajectories, pictures, scores, advantages.

    `on_drawn` is told of the candidates before they are scored.
    """
    candidates = sample_candidates(setup, iteration, trained_steps(setup, iteration), clock)
    on_drawn(candidates)
    with clock.phase("reward"):
        repeats = [score(setup, candidates, time) for time in range(setup.config.grpo.scorings)]
    return judge(setup.config, candidates, *reliable(setup.config, repeats))


def trained_steps(setup: Setup, iteration: int) -> list[int]:
    """The K steps whose turn it is."""
    return setup.objective.steps(generator=_generator(STEPS, setup.config.run.seed, iteration))


def sample_candidates(setup: Setup, iteration: int, kept: Sequence[int], clock: Clock) -> Candidates:
    """Stages 1 to 3 for the prompts whose turn it is; `kept` are the steps whose states are stored."""
    config, seed = setup.config, setup.config.run.seed
    prompts = prompt_order(len(config.prompts), seed, iteration, config.grpo.prompts_per_iteration)
    seeds = [derive_seed(NOISE, seed, iteration, slot) for slot in range(len(prompts))]
    with clock.phase("rollout"):
        noise = torch.cat([setup.objective.noise(s, setup.geometry.latent_shape) for s in seeds])
        told, solver = conditioning_of(setup, prompts), setup.objective.solver(list(kept))
        keeper = keeper_of(setup, iteration, solver, kept, len(prompts)) if setup.keeping.on else None
        setup.keeping.keeper = keeper
        trajectories = solve(setup, prompts, told, noise, solver, kept, derive_seed(SOLVER, seed, iteration), keeper)
    with clock.phase("decode"):
        images = decode_all(setup, trajectories.x_0)
    return Candidates(prompts, seeds, trajectories, images, keeper)


def keeper_of(setup: Setup, iteration: int, solver: Solver, kept: Sequence[int], prompts: int) -> Keeper | None:
    """What keeps the model's passes at the iteration's pairs, for a solver that asks once a step, at what it yields."""
    steps = setup.config.sampling.steps
    asks_once = solver.evaluations(steps) == steps and not getattr(solver, "renoises", False)
    if not asks_once or not hasattr(setup.policy, "keep"):
        return None
    pairs = drawn_pairs(setup, iteration, prompts)
    return setup.policy.keep(places_of(pairs, kept, setup.config.grpo.group_size))


def places_of(pairs: Pairs, kept: Sequence[int], group_size: int) -> list[Place]:
    """Where in the rollout the velocities of pairs, on the CPU, were computed; `kept` are the steps they count in."""
    rows = pairs.prompt * group_size + pairs.anchor
    return [(kept[k], row) for k, row in zip(pairs.step.tolist(), rows.tolist(), strict=True)]


def score(setup: Setup, candidates: Candidates, time: int = 0) -> dict[str, Tensor]:
    """Stage 4: every reward's scores, [P, G] each; from the second time on of pictures that are shifted a little."""
    scores = score_pictures(setup, shifted(candidates.images, time), candidates.texts(setup.config))
    return {name: values.view(len(candidates.prompts), -1) for name, values in scores.items()}


def reliable(config: Config, repeats: Sequence[dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, float] | None]:
    """Mean scores of several scorings, and each trained reward's share of signal; None if there was one scoring."""
    if len(repeats) == 1:
        return repeats[0], None
    stacked = {name: torch.stack([scores[name] for scores in repeats]) for name in repeats[0]}
    shares = {name: signal_share(stacked[name]).item() for name in config.weights}
    return {name: values.mean(0) for name, values in stacked.items()}, shares


def judge(
    config: Config, candidates: Candidates, scores: dict[str, Tensor], shares: dict[str, float] | None = None
) -> Group:
    """Stage 5: advantages of the trained rewards, each of which counts by its share of signal, if that is known."""
    grpo, weights, signal = config.grpo, config.weights, 1.0
    if shares is not None:
        signal = sum(abs(w) * shares[name] for name, w in weights.items()) / sum(map(abs, weights.values()))
        weights = {name: w * shares[name] for name, w in weights.items()}
    combined = combine(scores, weights, grpo.reward_normalisation, config.clips)
    advantages = combined.advantages
    if grpo.advantage_bound:
        advantages = softly_bounded(advantages, grpo.advantage_bound)
    advantages = quasi_norm_reweight(advantages, grpo.quasi_norm)
    if grpo.spread == BATCH:  # after the quasi-norm, which gives every group the same size
        advantages = advantages * relative_spread(combined.spread)[:, None]
    return Group(candidates, scores, combined, advantages, signal)


def pairs_of(setup: Setup, group: Group, iteration: int) -> Pairs:
    """Stage 6a: the triples to train, on the CPU, those of uninformative groups left out."""
    return drawn_pairs(setup, iteration, len(group.advantages)).only(group.combined.informative.cpu())


def drawn_pairs(setup: Setup, iteration: int, prompts: int) -> Pairs:
    """The triples of the iteration, on the CPU: they follow from the seed, and are known before the rollout."""
    return setup.objective.pairs(prompts, generator=_generator(PAIRS, setup.config.run.seed, iteration))


def improve(setup: Setup, state: State, group: Group, pairs: Pairs) -> tuple[dict[str, float], str]:
    """Stages 6b and 7: `updates_per_rollout` optimiser steps on the pairs.

    Returns the metrics, and why an update was skipped (empty if none was).
    """
    grpo, optimizer = setup.config.grpo, setup.config.optimizer
    if len(pairs) == 0:
        finite = all(group.scores[name].isfinite().all() for name in setup.config.weights)
        return {}, ALIKE if finite else "a reward was not a finite number"

    candidates = group.candidates
    loss_of = setup.objective.prepare(candidates.trajectories, group.advantages)

    def work(share: Pairs, places: Sequence[Place], micro_batch: int) -> PairMetrics:
        state.optimizer.zero_grad(set_to_none=True)  # of an attempt that ran out of memory
        # at a later update the policy has moved since the rollout
        kept = candidates.keeper if setup.keeping.on and not measured else None
        return gradient(setup, candidates, share, loss_of, micro_batch, around_of(kept, places, micro_batch))

    skipped, measured, norms = "", [], []
    for share in setup.objective.shares(pairs, grpo.updates_per_rollout):
        places = places_of(share, candidates.trajectories.steps, grpo.group_size)
        measured.append(setup.micro_batch.fit("update", partial(work, share, places)))
        if candidates.keeper is not None:
            candidates.keeper.clear()
        # AdamW's steps are as long for noise as for a signal
        lr = warmed_up(optimizer.learning_rate, state.updates, optimizer.warmup) * group.signal
        state.whole = False
        norm, applied = step_optimizer(
            state.optimizer, state.gradients, max_ratio=optimizer.max_grad_ratio, lr=lr, loss_scale=LOSS_SCALE
        )
        norms.append(norm)
        if applied:
            state.updates += 1
            state.average.update(setup.lora)
        else:
            skipped = "the gradient was not finite"
    steps = {"learning_rate": lr, "grad_norm": max(norms)}
    return {**steps, **_read(measured, effective_step(state.optimizer))}, skipped


def around_of(keeper: Keeper | None, places: Sequence[Place], micro_batch: int) -> Around | None:
    """How a micro-batch of pairs uses what was kept of them; None if nothing was."""
    return None if keeper is None else lambda start: keeper.used(places[start : start + micro_batch])


def gradient(
    setup: Setup,
    candidates: Candidates,
    pairs: Pairs,
    loss_of: Loss,
    micro_batch: int,
    around: Around | None = None,
) -> PairMetrics:
    """Add the gradient of these pairs, on the CPU, to the LoRA's.

    `around`: see `accumulate_gradient`.
    """
    filled = around is None and micro_batch == setup.rollout_batch.size
    velocity = policy_velocity(setup, candidates.prompts, micro_batch, filled=filled)
    reference = reference_of(setup, candidates.prompts, micro_batch) if setup.objective.needs_reference else None
    return accumulate_gradient(
        velocity,
        candidates.trajectories,
        pairs.to(candidates.trajectories.x.device),
        loss_of,
        group_size=setup.config.grpo.group_size,
        micro_batch=micro_batch,
        normaliser=pairs.total,
        reference=reference,
        referred=loss_of.referred(pairs) if isinstance(loss_of, Referring) else None,
        loss_scale=LOSS_SCALE,
        around=around,
    )


def reference_of(setup: Setup, prompts: list[int], micro_batch: int) -> BatchVelocity:
    """The velocity of the model without its LoRA."""
    plain = policy_velocity(setup, prompts, micro_batch, filled=False)

    def reference(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        with setup.policy.reference():
            return plain(x, sigma, rows)

    return reference


@contextmanager
def all_or_nothing(setup: Setup, state: State) -> Iterator[None]:
    """An iteration that an exception cuts short leaves weights, optimiser and average as they were before it.

    Nothing but the optimiser's steps changes them, so a copy is made only if there are several in an iteration. A
    single step that is itself cut short, within its few milliseconds, leaves a state that is not `whole`.
    """
    restore = _remember(setup, state) if setup.config.grpo.updates_per_rollout > 1 else None
    try:
        yield
    except BaseException:
        state.optimizer.zero_grad(set_to_none=True)
        if restore:
            restore()
            state.whole = True
        raise
    state.whole = True


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


def _read(measured: Sequence[PairMetrics], step: Tensor) -> dict[str, float]:
    """Metrics of an iteration's updates: the errors are those at the start, the others of the last update."""
    first, last = measured[0], measured[-1]
    values = {
        "loss": last.loss,
        "clip_fraction": last.clip_fraction,
        "kl_old": last.kl_old,
        "kl_reference": last.kl_reference,
        "ratio_error": first.ratio_error,
        "velocity_error": first.velocity_error,
        "effective_step": step.to(first.loss),
    }
    if len(measured) > 1:  # how far the policy has moved since the rollout
        values["velocity_shift"] = last.velocity_error
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def _generator(*path: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*path))
