"""The training loop: one iteration after the other, told to whoever listens, saved, and stopped in good order."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from ..device import peak_memory, watch_memory
from ..engine.drawing import Clock
from ..engine.grpo import ALIKE, Candidates, Group, all_or_nothing, collect, improve, pairs_of
from ..engine.micro_batch import OutOfMemory, answered
from ..engine.state import Setup, State
from ..errors import Stopped, UserError
from ..events import (
    COMPLETE,
    GAVE_UP,
    STOPPED,
    Changed,
    Drawn,
    Ending,
    Finished,
    Halved,
    IterationDone,
    Listener,
    Paused,
    Resumed,
    Skipped,
    Started,
    Unpaused,
    Waiting,
)
from ..planning.advice import lower
from ..rewards import RewardUnavailable
from ..stages.advantages import flatness
from ..stages.surrogate import mean_pairwise_distance, pairwise_distances
from .control import Control, change_at, in_force, with_change
from .evaluate import base_pictures, evaluate
from .self_test import self_test
from .waiting import LOOK, patient, wait_until_back

# groups without an update, one after the other, that end a run: a reward of 0 and 1 is alike in many a group by chance
PATIENCE = 30
FAULTY = 10  # groups that an iteration counts for if its numbers are not finite, which is no chance


def train(
    setup: Setup,
    state: State,
    *,
    on_event: Listener,
    save: Callable[[State], None],
    control: Control | None = None,
) -> Ending:
    """Run iterations until all are done, someone asks for a stop, or PATIENCE groups in a row brought no update.

    `control` is obeyed between iterations. Whatever a model call runs may also raise `Stopped` (see
    `Policy.before_call`): that iteration is then undone and counts as not begun. `save` is called every `save_every`
    iterations, before a pause and before returning.

    A phase that runs out of memory is done again with half the micro-batch, see `MicroBatch`. If one candidate is too
    many, the run saves and raises UserError with what to lower.

    A reward that is unavailable holds the run up: it saves, says so, and scores the same candidates when the reward is
    back. A stop, asked in any way, ends the waiting and a pause.

    The pictures of the evaluation prompts are drawn before iteration 0, then every so many iterations, and at the end
    of a run that was not simply stopped: one that goes on has no end yet.
    """
    run, control, saved = setup.config.run, control or Control(), None

    def save_state(anew: bool = False) -> None:
        """If it is not saved yet, or in any case."""
        nonlocal saved
        if anew or saved != state.iteration:
            save(state)
            saved = state.iteration

    def stop_if_asked() -> None:
        setup.policy.before_call()
        if control.ending:
            raise Stopped

    def wait(unavailable: RewardUnavailable) -> None:
        save(state)
        on_event(Waiting(state.iteration, str(unavailable)))
        on_event(Resumed(state.iteration, wait_until_back(unavailable, stop_if_asked)))

    def tell_halved(phase: str, size: int) -> None:
        on_event(Halved(state.iteration, phase, size))

    setup = replace(setup, rewards=patient(setup.rewards, wait))
    setup.micro_batch.on_halved = setup.scored_at_once.on_halved = tell_halved
    on_event(Started(state.iteration, run.iterations))
    ending, first = Ending(COMPLETE), state.iteration
    while state.iteration < run.iterations:
        if asked := control.ending:
            ending = asked
            break
        try:
            if state.iteration == first:
                on_event(self_test(setup, first))
            if evaluation_due(setup, state.iteration):
                on_event(evaluate(setup, state.iteration))
            obey(control, state, on_event, save_state, stop_if_asked)
            config = in_force(setup.config, state.changes, state.iteration)
            with answered("beside the model calls"):
                skipped = iterate(setup.under(config), state, on_event)
        except Stopped:
            ending = control.ending or Ending(STOPPED)
            break
        except OutOfMemory as error:
            save_state()
            advice = lower(replace(setup.config, run=replace(run, micro_batch=1)))
            raise UserError(f"{error}: set {advice}. Saved after {state.iteration} iterations") from error
        groups = config.grpo.prompts_per_iteration if skipped == ALIKE else FAULTY
        state.skipped_in_row = state.skipped_in_row + groups if skipped else 0
        state.iteration += 1
        if state.skipped_in_row >= PATIENCE:
            why = f"one iteration after the other without an update, the last time because {skipped}"
            ending = Ending(GAVE_UP, why)
            break
        if state.iteration % run.save_every == 0:
            save_state()
    save_state()
    if ending.kind != STOPPED and setup.evaluation is not None:
        conclude(setup, state, on_event)
    on_event(Finished(state.iteration, ending))
    return ending


def obey(
    control: Control,
    state: State,
    on_event: Listener,
    save_state: Callable[[bool], None],
    stop_if_asked: Callable[[], None],
) -> None:
    """Do what a person wishes between two iterations.

    `save_state` saves what was not saved yet, with True in any case. A change is told when its iteration comes, also
    when a resumed run makes it for the second time.
    """
    if control.take_save():
        save_state(True)
    if control.paused:
        save_state(False)
        on_event(Paused(state.iteration))
        began = time.monotonic()
        while control.paused:
            stop_if_asked()
            if control.take_save():
                save_state(True)
            control.wait(LOOK)
        on_event(Unpaused(state.iteration, time.monotonic() - began))
    if wish := control.take_change(state.iteration):
        state.changes = with_change(state.changes, wish)
    if change := change_at(state.changes, state.iteration):
        on_event(Changed(change, tuple(state.changes)))


def evaluation_due(setup: Setup, iteration: int) -> bool:
    every = setup.config.evaluation.every
    return setup.evaluation is not None and (iteration == 0 or (every > 0 and iteration % every == 0))


def conclude(setup: Setup, state: State, on_event: Listener) -> None:
    """The evaluation at the end of a run. A stop leaves it out."""
    with suppress(Stopped):
        on_event(evaluate(setup, state.iteration))


def iterate(setup: Setup, state: State, on_event: Listener) -> str:
    """One iteration, reported; returns why its update was skipped, empty if it was not."""
    setup = setup.sized(state.iteration)
    started, clock, base = time.perf_counter(), Clock(setup.policy.device), None
    told = 0.0  # seconds that the listeners take meanwhile

    def tell(candidates: Candidates) -> None:
        nonlocal told
        began = time.perf_counter()
        on_event(drawn(setup, state, candidates))
        told = time.perf_counter() - began

    watch_memory(setup.policy.device)
    with all_or_nothing(setup, state):
        group = collect(setup, state.iteration, clock, tell)
        if base_due(setup, state.iteration):
            with clock.phase("base"):
                base = base_pictures(setup, group.candidates.prompts, group.candidates.seeds)
        pairs = pairs_of(setup, group, state.iteration)
        with clock.phase("update"):
            metrics, skipped = improve(setup, state, group, pairs)
    metrics |= describe(group)
    metrics |= {"strength": setup.config.grpo.strength, **peak_memory(setup.policy.device)}
    metrics |= {f"seconds/{k}": v for k, v in clock.seconds.items()}
    metrics["seconds"] = time.perf_counter() - started - told
    on_event(report(setup, state.iteration, group, pairs.anchors(*group.advantages.shape), metrics, base))
    if skipped:
        on_event(Skipped(state.iteration, skipped))
    return skipped


def drawn(setup: Setup, state: State, candidates: Candidates) -> Drawn:
    prompts = [setup.config.prompts[p] for p in candidates.prompts]
    group_size = setup.config.grpo.group_size
    return Drawn(state.iteration, prompts, candidates.seeds, candidates.images, group_size)


def base_due(setup: Setup, iteration: int) -> bool:
    """Whether the base noises' own pictures are drawn: now and then, if pictures are stored at all."""
    run = setup.config.run
    return all(every > 0 and iteration % every == 0 for every in (run.base_every, run.tiles_every))


def describe(group: Group) -> dict[str, float]:
    """What a person wants to know about a group of candidates; one read from the device."""
    x_0 = final_latents(group)
    values = {
        "flatness": flatness(group.combined.advantages).nanmean(),
        "diversity": mean_pairwise_distance(x_0).mean() / x_0[0, 0].numel(),
        "skipped_groups": (~group.combined.informative).sum(),
    }
    for name, scores in group.scores.items():
        values[f"reward/{name}"] = scores.mean()
        values[f"reward_std/{name}"] = scores.std(-1, correction=0).mean()
    return dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))


def final_latents(group: Group) -> Tensor:
    """Where the candidates ended, [P, G, *latent]: of what is drawn."""
    trajectories = group.candidates.trajectories
    return trajectories.inside(trajectories.x_0).unflatten(0, group.advantages.shape)


def report(
    setup: Setup, iteration: int, group: Group, anchors: Tensor, metrics: dict[str, float], base: Tensor | None
) -> IterationDone:
    candidates = group.candidates
    return IterationDone(
        iteration=iteration,
        metrics=metrics,
        prompts=[setup.config.prompts[p] for p in candidates.prompts],
        seeds=candidates.seeds,
        scores={name: s.cpu() for name, s in group.scores.items()},
        advantages=group.advantages.cpu(),
        anchors=anchors,
        images=candidates.images,
        distances=pairwise_distances(final_latents(group)).cpu(),
        base=base,
    )
