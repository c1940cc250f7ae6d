"""The training loop: the only file that joins the stages, in the order of the data flow.

    prompts -> noise -> rollout -> decode -> reward -> advantages -> anchors -> surrogate -> update -> checkpoint

Departures from the paper, each a setting: the softmax temperature is scale-free (`surrogate.softmax_temperature`), the
LoRA alone is trained, and a group without advantages is not passed through the model at all.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .advantages import flatness, quasi_norm_reweight
from .anchors import Pairs, draw_pairs, draw_steps
from .config import Config
from .decode import decode
from .events import Finished, IterationDone, Listener, Skipped, Started
from .models.flux import FluxPolicy
from .models.geometry import Geometry
from .models.text import Conditioning
from .noise import derive_seed, neighborhood
from .prompts import prompt_order
from .rewards import Combined, Reward, combine
from .rollout import BatchVelocity, Trajectories, micro_batched, rollout
from .surrogate import mean_pairwise_distance, softmax_temperature
from .update import Ema, PairMetrics, accumulate_gradient, make_optimizer, step_optimizer, warmed_up

PATIENCE = 3  # iterations without an update, one after the other, that end a run
NOISE, STEPS, PAIRS = range(1, 4)  # streams of random numbers


@dataclass(frozen=True)
class Setup:
    """Everything a run needs, loaded."""

    config: Config
    policy: FluxPolicy
    lora: Mapping[str, nn.Parameter]
    conditioning: Conditioning  # of config.prompts
    rewards: Mapping[str, Reward]
    sigmas: Tensor  # [T + 1]
    geometry: Geometry


@dataclass
class State:
    """What changes while training."""

    optimizer: torch.optim.Optimizer
    average: Ema
    iteration: int = 0  # iterations done
    updates: int = 0  # optimiser steps done
    skipped_in_row: int = 0


@dataclass(frozen=True)
class Group:
    """Stages 1 to 5: the P * G candidates of one iteration and what they are worth."""

    prompts: list[int]  # P, into config.prompts
    seeds: list[int]  # P, of each neighborhood
    trajectories: Trajectories
    images: Tensor  # [P * G, 3, H, W]
    scores: dict[str, Tensor]  # [P, G] each
    combined: Combined  # A, [P, G]
    advantages: Tensor  # A', [P, G]


@dataclass
class Clock:
    """Seconds of each phase."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start


def new_state(setup: Setup) -> State:
    o = setup.config.optimizer
    parameters = list(setup.lora.values())
    optimizer = make_optimizer(parameters, lr=o.learning_rate, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay)
    return State(optimizer, Ema(setup.lora, o.ema_decay))


def train(
    setup: Setup,
    state: State,
    *,
    on_event: Listener,
    save: Callable[[State], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Run iterations until all are done, `should_stop` says so, or PATIENCE in a row brought no update.

    `should_stop` is asked between iterations. `save` is called every `save_every` iterations and before returning.
    Returns why the run ended, as in `Finished`.
    """
    run = setup.config.run
    on_event(Started(state.iteration, run.iterations))
    reason, saved = "complete", None
    while state.iteration < run.iterations:
        if should_stop():
            reason = "stopped"
            break
        started, clock = time.perf_counter(), Clock(setup.policy.device)
        group = collect(setup, state.iteration, clock)
        pairs = draw(setup, group, state.iteration)
        with clock.phase("update"):
            metrics, skipped = improve(setup, state, group, pairs)
        metrics |= describe(group)
        metrics |= {f"seconds/{k}": v for k, v in clock.seconds.items()}
        metrics["seconds"] = time.perf_counter() - started
        on_event(report(setup, state.iteration, group, pairs, metrics))
        if skipped:
            on_event(Skipped(state.iteration, skipped))
        state.skipped_in_row = state.skipped_in_row + 1 if skipped else 0
        state.iteration += 1
        if state.skipped_in_row >= PATIENCE:
            reason = f"gave up: no update in {PATIENCE} iterations in a row, the last time because {skipped}"
            break
        if state.iteration % run.save_every == 0:
            save(state)
            saved = state.iteration
    if saved != state.iteration:
        save(state)
    on_event(Finished(state.iteration, reason))
    return reason


def collect(setup: Setup, iteration: int, clock: Clock) -> Group:
    """Stages 1 to 5: neighborhoods, trajectories, pictures, scores, advantages."""
    config, policy, geometry = setup.config, setup.policy, setup.geometry
    grpo, sampling, micro_batch = config.grpo, config.sampling, config.run.micro_batch
    prompts = prompt_order(len(config.prompts), config.run.seed, iteration, grpo.prompts_per_iteration)
    seeds = [derive_seed(NOISE, config.run.seed, iteration, slot) for slot in range(len(prompts))]

    with clock.phase("rollout"):
        noise = [geometry.pack(neighborhood(s, geometry.latent_shape, grpo.strength, grpo.group_size)) for s in seeds]
        rows = torch.arange(len(prompts), device=policy.device).repeat_interleave(grpo.group_size)  # [N]
        keep = draw_steps(sampling.steps, grpo.trained_steps, generator=_generator(STEPS, config.run.seed, iteration))
        trajectories = rollout(
            policy_velocity(setup, prompts),
            torch.cat(noise).to(policy.device),
            rows,
            setup.sigmas,
            sampling.solver,
            keep,
        )
    with clock.phase("decode"):
        images = decode(lambda x_0: policy.decode(x_0, geometry), trajectories.x_0, micro_batch)
    with clock.phase("reward"):
        texts = [config.prompts[p] for p in prompts for _ in range(grpo.group_size)]
        scores = {
            name: reward.score(images, texts).float().view(len(prompts), grpo.group_size)
            for name, reward in setup.rewards.items()
        }
    combined = combine(scores, config.weights, grpo.reward_normalisation)
    advantages = quasi_norm_reweight(combined.advantages, grpo.quasi_norm)
    return Group(prompts, seeds, trajectories, images, scores, combined, advantages)


def policy_velocity(setup: Setup, prompts: Sequence[int]) -> BatchVelocity:
    """The policy for the given prompts (rows count within them), micro-batched alike in rollout and update."""
    conditioning = setup.conditioning[torch.tensor(prompts, device=setup.policy.device)]
    return micro_batched(setup.policy.velocity(conditioning, setup.geometry), setup.config.run.micro_batch)


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
    grpo, optimizer, trajectories = setup.config.grpo, setup.config.optimizer, group.trajectories
    if len(pairs) == 0:
        finite = all(group.scores[name].isfinite().all() for name in setup.config.weights)
        return {}, "no group has rewards that differ" if finite else "a reward was not a finite number"

    prompts, group_size = group.advantages.shape
    candidates = trajectories.x_next.unflatten(1, (prompts, group_size))  # [K, P, G, *latent]
    tau = torch.stack([softmax_temperature(c, grpo.temperature, grpo.temperature_mode) for c in candidates])
    velocity = policy_velocity(setup, group.prompts)
    pairs = pairs.to(setup.policy.device)

    def reference(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        with setup.policy.reference():
            return velocity(x, sigma, rows)

    skipped, measured, norms = "", [], []
    for _ in range(grpo.updates_per_rollout):
        measured.append(
            accumulate_gradient(
                velocity,
                trajectories,
                pairs,
                group.advantages,
                tau,
                clip=grpo.clip,
                micro_batch=setup.config.run.micro_batch,
                normaliser=prompts * grpo.anchors * grpo.trained_steps,
                reference=reference,
                kl_weight=grpo.kl_weight,
            )
        )
        lr = warmed_up(optimizer.learning_rate, state.updates, optimizer.warmup)
        norm, applied = step_optimizer(state.optimizer, optimizer.max_grad_norm, lr)
        norms.append(norm)
        if applied:
            state.updates += 1
            state.average.update(setup.lora)
        else:
            skipped = "the gradient was not finite"
    return {"learning_rate": lr, "grad_norm": max(norms), **_read(measured)}, skipped


def describe(group: Group) -> dict[str, float]:
    """What a person wants to know about a group of candidates; one read from the device."""
    prompts, group_size = group.advantages.shape
    x_0 = group.trajectories.x_0.unflatten(0, (prompts, group_size))
    values = {
        "flatness": flatness(group.combined.advantages).nanmean(),
        "diversity": mean_pairwise_distance(x_0).mean() / x_0[0, 0].numel(),
        "skipped_groups": (~group.combined.informative).sum(),
    }
    for name, scores in group.scores.items():
        values[f"reward/{name}"] = scores.mean()
        values[f"reward_std/{name}"] = scores.std(-1, correction=0).mean()
    return dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))


def report(setup: Setup, iteration: int, group: Group, pairs: Pairs, metrics: dict[str, float]) -> IterationDone:
    anchors = torch.zeros(group.advantages.shape, dtype=torch.bool)
    anchors[pairs.prompt, pairs.anchor] = True
    return IterationDone(
        iteration=iteration,
        metrics=metrics,
        prompts=[setup.config.prompts[p] for p in group.prompts],
        seeds=group.seeds,
        scores={name: s.cpu() for name, s in group.scores.items()},
        advantages=group.advantages.cpu(),
        anchors=anchors,
        images=group.images,
    )


def _read(measured: Sequence[PairMetrics]) -> dict[str, float]:
    """Metrics of an iteration's updates: the ratio error at the start, the others of the last update."""
    first, last = measured[0], measured[-1]
    values = {
        "loss": last.loss,
        "clip_fraction": last.clip_fraction,
        "kl_old": last.kl_old,
        "kl_reference": last.kl_reference,
        "ratio_error": first.ratio_error,
    }
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def _generator(*path: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*path))
