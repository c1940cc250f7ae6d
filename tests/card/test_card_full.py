"""A card that runs out of memory, in each phase and at any allocation: the run goes on with smaller parts, or says what
to lower; weights are those of whole iterations."""

from dataclasses import replace

import card
import pytest
import torch

from trainer.engine.keeping import Keeping
from trainer.engine.micro_batch import MicroBatch
from trainer.engine.state import new_state
from trainer.errors import UserError
from trainer.events import Ending, Evaluated, Halved, IterationDone, LetGo
from trainer.models.lora.attach import set_weights
from trainer.settings.config_file import load_config
from trainer.training import loop
from trainer.training.prepare import prepare

RUN = ["model.device='card'", "model.dtype='float32'", "run.iterations=1", "evaluation.prompts=['a cat', 'a dog']"]
RUN += ["sampling.steps=2", "grpo.prompts_per_iteration=1"]
ALLOCATIONS = 10


@pytest.fixture
def setup(config_file):
    return prepare(load_config(config_file(), RUN))


class Phases:
    """Knows the most that each phase takes; then has the card run out in one of them, or nowhere."""

    def __init__(self, monkeypatch):
        self.needed, self.full, self.evaluating = {}, "", False
        fit, evaluate = MicroBatch.fit, loop.evaluate

        def measured(batch, phase, work):
            name = "evaluation" if self.evaluating and phase == "rollout" else phase
            card.memory.restart_peak()
            level = card.memory.live
            if name == self.full:
                card.memory.limit = level + round(0.98 * self.needed[name])
            try:
                return fit(batch, phase, work)
            finally:
                card.memory.limit = None
                self.needed[name] = max(self.needed.get(name, 0), card.memory.peak - level)

        def evaluating(*arguments):
            self.evaluating = True
            try:
                return evaluate(*arguments)
            finally:
                self.evaluating = False

        monkeypatch.setattr(MicroBatch, "fit", measured)
        monkeypatch.setattr(loop, "evaluate", evaluating)


def again(setup, start, *, keeps=False) -> tuple[list, object]:
    """A run from the same weights with parts of the usual size; its events, and why it ended."""
    set_weights(setup.lora, start)
    parts = {"micro_batch": MicroBatch(4), "rollout_batch": MicroBatch(4), "scored_at_once": MicroBatch(8)}
    setup, events = replace(setup, **parts, keeping=Keeping(keeps)), []
    try:
        end = loop.train(setup, new_state(setup), on_event=events.append, save=lambda state: None)
    except (UserError, torch.OutOfMemoryError) as error:
        end = error
    return events, end


def weights(setup) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu() for name, p in setup.lora.items()}


def distance(first, second) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in first)


def apart(first, second) -> float:
    return sum((first[name] - second[name]).square().sum().item() for name in first) ** 0.5


def test_a_phase_that_does_not_fit_is_done_in_smaller_parts(setup, monkeypatch):
    start, phases = weights(setup), Phases(monkeypatch)
    again(setup, start)  # the first run makes what all later ones keep
    phases.needed.clear()
    again(setup, start)
    expected = weights(setup)
    for phase in ("self-test", "rollout", "decoding", "reward", "update", "evaluation"):
        phases.full = phase
        events, end = again(setup, start)
        halved = [e.phase for e in events if isinstance(e, Halved)]
        assert halved, phase
        assert set(halved) == {"rollout" if phase == "evaluation" else phase}
        assert end.kind == "complete"
        # rounding: for an element without much of a gradient Adam makes a step of it
        assert apart(weights(setup), expected) < 0.05 * apart(expected, start)
        assert [type(e) for e in events if isinstance(e, IterationDone | Evaluated)] == [
            Evaluated,
            IterationDone,
            Evaluated,
        ]


def test_a_failure_at_any_allocation_loses_nothing(setup):
    """One of ten allocations, spread over the run, fails once: in a phase, that one is done in smaller parts.

    Elsewhere (the optimiser's step, the report) it ends the run, whose last checkpoint is what counts.
    """
    start = weights(setup)
    again(setup, start, keeps=True)
    first = card.memory.taken
    again(setup, start, keeps=True)
    count, expected, told = card.memory.taken - first, weights(setup), 0
    for n in range(ALLOCATIONS):
        card.memory.fails = {card.memory.taken + 1 + (n * count + count // 2) // ALLOCATIONS}
        events, end = again(setup, start, keeps=True)
        assert not card.memory.fails
        told += any(isinstance(e, Halved | LetGo) for e in events)
        finished = isinstance(end, Ending) and end.kind == "complete"
        moved, left = distance(weights(setup), start), apart(weights(setup), expected)
        assert left < 0.05 * apart(expected, start) or (not finished and moved == 0)
        assert finished or not isinstance(end, UserError) or "Saved after 0 iterations" in str(end)
    assert told >= ALLOCATIONS / 2
    first = card.memory.taken
    again(setup, start, keeps=True)
    assert card.memory.taken - first == count  # nothing of a failure stays: not a decoder that had half arrived
