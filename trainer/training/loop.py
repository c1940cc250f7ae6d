"""The training loop: one iteration after the other, told to whoever listens, saved, and stopped in good order."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from ..device import peak_memory, watch_memory
from ..engine.drawing import Clock
from ..engine.grpo import ALIKE, Candidates, all_or_nothing, collect, improve, pairs_of
from ..engine.micro_batch import OutOfMemory, answered
from ..engine.state import Setup, State, as_exported
from ..errors import Stopped, UserError
from ..events import (
    COMPLETE,
    GAVE_UP,
    STOPPED,
    Change,
    Changed,
    Ending,
    Finished,
    Halved,
    LetGo,
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
from .base_noises import look_at
from .control import Control, change_at, in_force, with_change
from .evaluate import evaluate
from .probe import probe
from .report import describe, drawn, report
from .self_test import self_test
from .waiting import LOOK, patient, wait_until_back

log = logging.getLogger(__name__)

# groups without an update, one after the other, that end a run: a reward of 0 and 1 is alike in many a group by chance
PATIENCE = 30
FAULTY = 10  # groups that an iteration counts for if its numbers are not finite, which is no chance


def train(
    setup: Setup,
    state: State,
    *,
    on_event: Listener,
    save: Callable[[State], None],
    rescue: Callable[[State], None] | None = None,
    control: Control | None = None,
) -> Ending:
    """Run iterations until all are done, someone asks for a stop, or PATIENCE groups in a row brought no update.

    `control` is obeyed between iterations. Whatever a model call runs may also raise `Stopped` (see
    `Policy.before_call`): that iteration is then undone and counts as not begun. `save` is called every `save_every`
    iterations, before a pause and before returning, `rescue` (or else `save`) before an exception leaves:
    whatever ends a run, every iteration that was done is kept.

    A phase that runs out of memory is done again with half the micro-batch, see `MicroBatch`. If one candidate is too
    many, the run saves and raises UserError with what to lower.

    A reward that is unavailable holds the run up: it saves, says so, and scores the same candidates when the reward is
    back. A stop, asked in any way, ends the waiting and a pause, also the waiting for a server's answer.

    The pictures of the evaluation prompts are drawn before iteration 0, then every so many iterations, and at the end
    of a run that was not simply stopped: one that goes on has no end yet.
    """
    return _Loop(setup, state, on_event, save, rescue or save, control or Control()).run()


class _Loop:
    """A training under way."""

    def __init__(
        self,
        setup: Setup,
        state: State,
        on_event: Listener,
        save: Callable[[State], None],
        rescue: Callable[[State], None],
        control: Control,
    ):
        self.setup = replace(setup, rewards=patient(setup.rewards, self.hold, self.stop_if_asked))
        self.state, self.on_event, self.control = state, on_event, control
        self.save, self.save_last = save, rescue
        self.first = state.iteration
        self.saved: int | None = None  # the iteration whose beginning was saved last
        for batch in (setup.micro_batch, setup.rollout_batch, setup.scored_at_once):
            batch.on_halved, batch.let_go = self.tell_halved, self.let_go

    def run(self) -> Ending:
        with looking(self.setup, self.control):
            try:
                return self.to_the_end()
            except BaseException:
                self.rescue()
                raise

    def to_the_end(self) -> Ending:
        self.on_event(Started(self.state.iteration, self.setup.config.run.iterations))
        ending = self.go_on()
        self.save_if_new()
        if ending.kind != STOPPED and self.setup.evaluation is not None:
            with suppress(Stopped), as_exported(self.setup, self.state):  # a stop leaves this one out
                self.on_event(evaluate(self.setup, self.state.iteration))
        self.on_event(Finished(self.state.iteration, ending))
        return ending

    def go_on(self) -> Ending:
        """Iterations, until one of the reasons for which a run ends."""
        state, run = self.state, self.setup.config.run
        while state.iteration < run.iterations:
            if ending := self.control.ending:
                return ending
            try:
                if state.iteration == self.first:
                    self.on_event(self_test(self.setup, self.first))
                    self.find_strength()
                skipped = self.iterate()
            except Stopped:
                return self.control.ending or Ending(STOPPED)
            except OutOfMemory as error:
                if state.whole:
                    self.save_if_new()
                kept = self.first if self.saved is None else self.saved
                advice = lower(replace(self.setup.config, run=replace(run, micro_batch=1, rollout_batch=1)))
                raise UserError(f"{error}: set {advice}. Saved after {kept} iterations") from error
            if state.skipped_in_row >= PATIENCE:
                why = f"one iteration after the other without an update, the last time because {skipped}"
                return Ending(GAVE_UP, why)
            if state.iteration % run.save_every == 0:
                self.save_if_new()
        return Ending(COMPLETE)

    def find_strength(self) -> None:
        """Before the first iteration, if the settings ask for it; a resumed run has what was found the first time."""
        state = self.state
        if self.setup.config.grpo.probe == 0 or state.iteration > 0 or change_at(state.changes, 0):
            return
        found = probe(self.setup, state.iteration, self.stop_if_asked)
        self.on_event(found)
        state.changes = with_change(state.changes, Change(0, strength=found.strength))

    def iterate(self) -> str:
        """One iteration, and what comes before it; why its update was skipped, empty if it was not."""
        state = self.state
        if evaluation_due(self.setup, state.iteration):
            with as_exported(self.setup, state):
                self.on_event(evaluate(self.setup, state.iteration))
        self.obey()
        config = in_force(self.setup.config, state.changes, state.iteration)
        with answered("beside the model calls"):
            skipped = iterate(self.setup.under(config), state, self.on_event)
        groups = config.grpo.prompts_per_iteration if skipped == ALIKE else FAULTY
        state.skipped_in_row = state.skipped_in_row + groups if skipped else 0
        return skipped

    def obey(self) -> None:
        """Do what a person wishes between two iterations.

        A change is told when its iteration comes, also when a resumed run makes it for the second time.
        """
        control, state = self.control, self.state
        self.save_if_asked()
        if control.paused:
            self.save_if_new()
            self.on_event(Paused(state.iteration))
            began = time.monotonic()
            while control.paused:
                self.stop_if_asked()
                self.save_if_asked()
                control.wait(LOOK)
            self.on_event(Unpaused(state.iteration, time.monotonic() - began))
        if wish := control.take_change(state.iteration):
            state.changes = with_change(state.changes, wish)
        if change := change_at(state.changes, state.iteration):
            self.on_event(Changed(change, tuple(state.changes)))

    def hold(self, unavailable: RewardUnavailable) -> None:
        """Until the reward is back."""
        self.save_if_new()
        self.on_event(Waiting(self.state.iteration, str(unavailable)))
        self.on_event(Resumed(self.state.iteration, wait_until_back(unavailable, self.stop_if_asked)))

    def stop_if_asked(self) -> None:
        self.setup.policy.before_call()
        if self.control.ending:
            raise Stopped

    def save_now(self) -> None:
        self.save(self.state)
        self.saved = self.state.iteration

    def rescue(self) -> None:
        """Keep what was done before the error that is about to end the run."""
        done = self.state.iteration
        if not self.state.whole or done in (self.first, self.saved):
            return
        try:
            self.save_last(self.state)
            log.warning("saved after %d iterations, as an error ends the run", done)
        except Exception as error:  # noqa: BLE001  whatever it is, the first error is to be told
            log.warning("what was done since the last checkpoint could not be saved: %s", error)

    def save_if_new(self) -> None:
        if self.saved != self.state.iteration:
            self.save_now()

    def save_if_asked(self) -> None:
        if self.control.take_save():
            self.save_now()

    def tell_halved(self, phase: str, size: int) -> None:
        self.on_event(Halved(self.state.iteration, phase, size))

    def let_go(self, phase: str) -> bool:
        stopped = self.setup.keeping.stop()
        if stopped:
            self.on_event(LetGo(self.state.iteration, phase))
        return stopped


@contextmanager
def looking(setup: Setup, control: Control) -> Iterator[None]:
    """A stop that is overdue is seen at each model call."""
    ask = setup.policy.before_call

    def look() -> None:
        ask()
        if control.overdue:
            raise Stopped

    setup.policy.before_call = look
    try:
        yield
    finally:
        setup.policy.before_call = ask


def evaluation_due(setup: Setup, iteration: int) -> bool:
    every = setup.config.evaluation.every
    return setup.evaluation is not None and (iteration == 0 or (every > 0 and iteration % every == 0))


def iterate(setup: Setup, state: State, on_event: Listener) -> str:
    """One iteration, reported; returns why its update was skipped, empty if it was not.

    It counts as done as soon as its update is: a listener that fails afterwards leaves a state that can be saved.
    """
    iteration = state.iteration
    setup = setup.sized(iteration)
    started, clock, base = time.perf_counter(), Clock(setup.policy.device), None
    away: dict[str, float] = {}
    told = 0.0  # seconds that the listeners take meanwhile

    def tell(candidates: Candidates) -> None:
        nonlocal told
        began = time.perf_counter()
        on_event(drawn(setup, state, candidates))
        told = time.perf_counter() - began

    watch_memory(setup.policy.device)
    with all_or_nothing(setup, state):
        group = collect(setup, iteration, clock, tell)
        if base_due(setup, iteration):
            with clock.phase("base"):
                base, away = look_at(setup, group.candidates.prompts, group.candidates.seeds)
        pairs = pairs_of(setup, group, iteration)
        with clock.phase("update"):
            metrics, skipped = improve(setup, state, group, pairs)
        state.iteration += 1
    metrics |= {**describe(group), **away}
    if setup.config.grpo.scorings > 1:
        metrics["signal"] = group.signal
    metrics |= {"strength": setup.config.grpo.strength, **peak_memory(setup.policy.device)}
    metrics |= {f"seconds/{k}": v for k, v in clock.seconds.items()}
    metrics["seconds"] = time.perf_counter() - started - told
    on_event(report(setup, iteration, group, pairs.anchors(*group.advantages.shape), metrics, base))
    if skipped:
        on_event(Skipped(iteration, skipped))
    return skipped


def base_due(setup: Setup, iteration: int) -> bool:
    """Whether the base noises' own pictures are drawn: now and then, if pictures are stored at all."""
    run = setup.config.run
    return all(every > 0 and iteration % every == 0 for every in (run.base_every, run.tiles_every))
