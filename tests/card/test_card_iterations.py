"""An iteration on the card: where the host waits, and what memory it leaves."""

import gc
from collections import Counter

import card
import pytest

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state
from trainer.events import IterationDone
from trainer.settings.config_file import load_config
from trainer.training.loop import train
from trainer.training.prepare import prepare

CARD = ["model.device='card'", "model.dtype='bfloat16'"]


@pytest.fixture
def make(config_file):
    def make(*overrides):
        return prepare(load_config(config_file(), [*CARD, *overrides]))

    with card.pinning():
        yield make


def waits_of(setup, state, iteration: int) -> tuple[Counter, Counter]:
    """Waits in stages 1 to 5, and in the update, by kind and place."""
    found = []

    def read() -> None:
        found.append(Counter((wait.kind, wait.function) for wait in card.waits))
        card.waits.clear()

    read()
    group = collect(setup, iteration, Clock(setup.policy.device))
    read()
    improve(setup, state, group, pairs_of(setup, group, iteration))
    read()
    return found[1], found[2]


@pytest.mark.parametrize(
    ("overrides", "updates"),
    [
        ([], 1),
        (["sampling.steps=6", "run.micro_batch=2", "grpo.updates_per_rollout=2"], 2),
        (["model.memory='fp8'", "model.offload=1.0", "model.checkpointing=false"], 1),
    ],
    ids=("usual", "more steps, smaller parts", "offloaded"),
)
def test_the_host_waits_so_often_in_an_iteration_and_never_in_a_loop_over_steps(make, overrides, updates):
    """8 pictures of 2 prompts. The copies to the card are a few numbers each, but for the VAE's, which come once."""
    setup = make(*overrides)
    state = new_state(setup)
    waits_of(setup, state, 0)  # the first iteration learns what the others know
    drawn, trained = waits_of(setup, state, 1)
    vae = len(list(setup.policy.vae.vae.parameters()))
    assert drawn == {
        ("to card", "begin"): 1,  # the noise
        ("to card", "<lambda>"): 2,  # the prompts' embeddings, which wait on the host
        ("to card", "rollout"): 2,  # the sigmas, and their differences
        ("to card", "modulate_of"): 1,  # the sigmas
        ("to card", "table"): 1,  # CLIP's vectors
        ("to card", "visiting"): vae,
        ("to host", "check_images"): 1,
        ("synchronize", "synchronize"): 3,  # the clock, after rollout, decode and reward
    }
    assert trained == {
        ("to host", "pairs_of"): 1,  # which groups have something to say
        ("to card", "<lambda>"): 5 * updates,  # its pairs; the prompts' embeddings
        ("to card", "modulate_of"): updates,  # the sigmas: the table is the rollout's
        ("item", "step_optimizer"): updates,  # whether the gradient is finite
        ("to host", "_read"): 1,  # the metrics
    }


def test_memory_is_level_over_twenty_iterations_and_gone_with_the_policy(make):
    gc.collect()
    before, levels = card.memory.live, []

    def look(event):
        if isinstance(event, IterationDone):
            gc.collect()
            shown = (event.images, event.base)
            levels.append(card.memory.live - sum(pictures.nbytes for pictures in shown if pictures is not None))

    setup = make("run.iterations=20", "optimizer.ema_decay=0.5", "grpo.group_size=2", "sampling.steps=2")
    state = new_state(setup)
    assert train(setup, state, on_event=look, save=lambda state: None).kind == "complete"
    assert len(levels) == 20
    assert set(levels[1:]) == {levels[1]}, levels
    assert levels[1] > before
    del setup, state, look
    gc.collect()
    assert card.memory.live == before
