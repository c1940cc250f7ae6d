"""The training loop: one iteration after the other, told to whoever listens, saved, and stopped in good order."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .advantages import flatness
from .errors import Stopped
from .events import Finished, IterationDone, Listener, Resumed, Skipped, Started, Waiting
from .iteration import Clock, Group, Setup, State, all_or_nothing, collect, draw, improve
from .rewards import RewardUnavailable
from .surrogate import mean_pairwise_distance
from .waiting import patient, wait_until_back

PATIENCE = 3  # iterations without an update, one after the other, that end a run


def train(
    setup: Setup,
    state: State,
    *,
    on_event: Listener,
    save: Callable[[State], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Run iterations until all are done, `should_stop` says so, or PATIENCE in a row brought no update.

    `should_stop` is asked between iterations. Whatever a model call runs may also raise `Stopped` (see
    `FluxPolicy.before_call`): that iteration is then undone and counts as not begun. `save` is called every
    `save_every` iterations and before returning. Returns why the run ended, as in `Finished`.

    A reward that is unavailable pauses the run: it saves, says so, and scores the same candidates when the reward is
    back. A stop, asked in either way, ends the pause.
    """
    run = setup.config.run

    def stop_if_asked() -> None:
        setup.policy.before_call()
        if should_stop():
            raise Stopped

    def wait(unavailable: RewardUnavailable) -> None:
        save(state)
        on_event(Waiting(state.iteration, str(unavailable)))
        on_event(Resumed(state.iteration, wait_until_back(unavailable, stop_if_asked)))

    setup = replace(setup, rewards=patient(setup.rewards, wait))
    on_event(Started(state.iteration, run.iterations))
    reason, saved = "complete", None
    while state.iteration < run.iterations:
        if should_stop():
            reason = "stopped"
            break
        try:
            skipped = iterate(setup, state, on_event)
        except Stopped:
            reason = "stopped"
            break
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


def iterate(setup: Setup, state: State, on_event: Listener) -> str:
    """One iteration, reported; returns why its update was skipped, empty where it was not."""
    started, clock = time.perf_counter(), Clock(setup.policy.device)
    with all_or_nothing(setup, state):
        group = collect(setup, state.iteration, clock)
        pairs = draw(setup, group, state.iteration)
        with clock.phase("update"):
            metrics, skipped = improve(setup, state, group, pairs)
    metrics |= describe(group)
    metrics |= {f"seconds/{k}": v for k, v in clock.seconds.items()}
    metrics["seconds"] = time.perf_counter() - started
    on_event(report(setup, state.iteration, group, pairs.anchors(*group.advantages.shape), metrics))
    if skipped:
        on_event(Skipped(state.iteration, skipped))
    return skipped


def describe(group: Group) -> dict[str, float]:
    """What a person wants to know about a group of candidates; one read from the device."""
    x_0 = group.candidates.trajectories.x_0.unflatten(0, group.advantages.shape)
    values = {
        "flatness": flatness(group.combined.advantages).nanmean(),
        "diversity": mean_pairwise_distance(x_0).mean() / x_0[0, 0].numel(),
        "skipped_groups": (~group.combined.informative).sum(),
    }
    for name, scores in group.scores.items():
        values[f"reward/{name}"] = scores.mean()
        values[f"reward_std/{name}"] = scores.std(-1, correction=0).mean()
    return dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))


def report(setup: Setup, iteration: int, group: Group, anchors: Tensor, metrics: dict[str, float]) -> IterationDone:
    return IterationDone(
        iteration=iteration,
        metrics=metrics,
        prompts=[setup.config.prompts[p] for p in group.candidates.prompts],
        seeds=group.candidates.seeds,
        scores={name: s.cpu() for name, s in group.scores.items()},
        advantages=group.advantages.cpu(),
        anchors=anchors,
        images=group.candidates.images,
    )
