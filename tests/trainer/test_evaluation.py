"""Pictures beside the training: of the evaluation prompts and of the base noises. They change nothing of it."""

import math
import sqlite3

import pytest
import torch
from asked import Asked

from trainer.engine.setup import encode
from trainer.engine.state import Canvas, as_exported, new_state
from trainer.errors import Stopped
from trainer.events import Evaluated, IterationDone
from trainer.settings.config_file import load_config
from trainer.stages.inpainting import Init
from trainer.stages.noise import partly_noised
from trainer.store.database import DATABASE
from trainer.training.base_noises import base_pictures
from trainer.training.control import Control
from trainer.training.early_stop import EarlyStop
from trainer.training.evaluate import evaluate, init_of
from trainer.training.loop import train
from trainer.training.prepare import prepare
from trainer.training.run import start_run

EVALUATED = ["evaluation.prompts=['a blue fish', 'a green <b>tree</b>', 'a blue fish']", "evaluation.every=2"]


@pytest.fixture
def make(config_file):
    def make(*overrides):
        return prepare(load_config(config_file(), ["run.iterations=5", *overrides]))

    return make


def run(setup, **options):
    events, state = [], new_state(setup)
    reason = str(train(setup, state, on_event=events.append, save=lambda s: None, **options))
    return reason, state, events


def of(events, kind):
    return [e for e in events if isinstance(e, kind)]


def picture(setup, conditioning, row, seed):
    """One picture by Euler-free means: the solver's own grid, one candidate, no micro-batch, no neighborhood."""
    noise = torch.randn(setup.geometry.latent_shape, generator=torch.Generator().manual_seed(seed))[None]
    velocity = setup.policy.velocity(conditioning, setup.geometry)
    x, grid = setup.geometry.pack(noise), setup.sigmas.tolist()
    with torch.no_grad():
        for s, s_next in zip(grid, grid[1:], strict=False):
            x = x + (s_next - s) * velocity(x, torch.tensor([s]), torch.tensor([row]))
    return setup.policy.decode(x, setup.geometry)[0]


def test_what_is_evaluated_is_what_is_exported_and_the_training_goes_on_with_its_own_weights(make):
    settings = (*EVALUATED, "optimizer.ema_decay=0.9", "optimizer.learning_rate=1e-2")
    setup = make(*settings)
    plain = make("optimizer.ema_decay=0.9", "optimizer.learning_rate=1e-2")
    _, state, events = run(setup)
    run(plain)
    assert all(torch.equal(p, plain.lora[name]) for name, p in setup.lora.items())
    *_, last = of(events, Evaluated)
    own = evaluate(setup, 5).images
    with as_exported(setup, state):
        assert all(torch.equal(p, state.average.shadow[name]) for name, p in setup.lora.items())
        averaged = evaluate(setup, 5).images
    assert torch.equal(last.images, averaged)
    assert not torch.equal(own, averaged)


@pytest.mark.also_on_card
def test_evaluations_come_at_the_start_every_few_iterations_and_at_the_end(make):
    _, _, events = run(make(*EVALUATED))
    assert [e.iteration for e in of(events, Evaluated)] == [0, 2, 4, 5]
    order = [(type(e), e.iteration) for e in events if isinstance(e, Evaluated | IterationDone)]
    assert order.index((Evaluated, 2)) == order.index((IterationDone, 1)) + 1
    first = of(events, Evaluated)[0]
    assert first.prompts == ["a blue fish", "a green <b>tree</b>", "a blue fish"]
    assert first.seeds == [0, 1, 2]
    assert first.images.shape == (3, 3, 64, 64)
    assert first.scores["colourfulness"].shape == (3,)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(EVALUATED[:1], [0, 5]), (EVALUATED[1:], []), ((), [])],
    ids=["only prompts", "only every", "neither"],
)
def test_without_a_number_there_are_the_first_and_the_last_and_without_prompts_none(make, settings, expected):
    _, _, events = run(make(*settings))
    assert [e.iteration for e in of(events, Evaluated)] == expected


def test_the_evaluation_prompts_are_encoded_as_if_they_were_alone(make):
    setup = make(*EVALUATED)
    alone = encode(setup.config, setup.config.evaluation.prompts)
    assert torch.equal(setup.evaluation.tensors["embeddings"], alone.tensors["embeddings"])
    assert torch.equal(setup.evaluation.tensors["pooled"], alone.tensors["pooled"])


def test_an_evaluation_shows_the_policy_of_its_moment_on_the_same_noise(make):
    learning = ["optimizer.learning_rate=0.05", "optimizer.warmup=0", "optimizer.ema_decay=0"]
    setup = make(*EVALUATED, "sampling.solver='euler'", *learning)
    before = [picture(setup, setup.evaluation, n, seed=n) for n in range(3)]
    _, _, events = run(setup)
    after = [picture(setup, setup.evaluation, n, seed=n) for n in range(3)]
    first, *_, last = of(events, Evaluated)
    torch.testing.assert_close(first.images, torch.stack(before), rtol=0, atol=1e-4)
    torch.testing.assert_close(last.images, torch.stack(after), rtol=0, atol=1e-4)
    assert (first.images - last.images).abs().max() > 1e-3
    expected = setup.rewards["colourfulness"].score(last.images, last.prompts)
    torch.testing.assert_close(last.scores["colourfulness"], expected)


def test_the_base_noises_own_pictures_are_drawn_now_and_then(make):
    setup = make("run.base_every=2", "sampling.solver='euler'", "run.iterations=4")
    _, _, events = run(setup)
    done = of(events, IterationDone)
    assert [e.base is not None for e in done] == [True, False, True, False]
    assert ["seconds/base" in e.metrics for e in done] == [True, False, True, False]
    assert done[0].base.shape == (2, 3, 64, 64)
    fresh = make("run.base_every=2", "sampling.solver='euler'")
    for slot, (prompt, seed) in enumerate(zip(done[0].prompts, done[0].seeds, strict=True)):
        expected = picture(fresh, fresh.conditioning, fresh.config.prompts.index(prompt), seed)
        torch.testing.assert_close(done[0].base[slot], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        (("run.base_every=0",), []),
        (("run.tiles_every=0",), []),
        (("run.base_every=2", "run.tiles_every=3", "run.iterations=7"), [0, 6]),
    ],
    ids=["never", "no pictures stored", "where both fall together"],
)
def test_base_pictures_are_drawn_only_where_pictures_are_stored(make, settings, drawn):
    _, _, events = run(make(*settings))
    assert [e.iteration for e in of(events, IterationDone) if e.base is not None] == drawn


def test_neither_changes_a_bit_of_the_training(make):
    plain, watched = make("run.base_every=0"), make("run.base_every=1", *EVALUATED)
    assert torch.equal(plain.conditioning.tensors["embeddings"], watched.conditioning.tensors["embeddings"])
    results = []
    for setup in (plain, watched):
        _, _, events = run(setup)
        done = of(events, IterationDone)
        own = ("seconds", "velocity_change", "velocity_norm")  # of the watched one
        metrics = [{k: v for k, v in e.metrics.items() if not k.startswith(own)} for e in done]
        results.append((metrics, [e.seeds for e in done], {n: p.detach().clone() for n, p in setup.lora.items()}))
    assert results[0][:2] == results[1][:2]
    assert all(torch.equal(results[0][2][name], p) for name, p in results[1][2].items())


@pytest.mark.also_on_card
def test_image_to_image_evaluates_and_shows_its_base_from_the_init_latent(make):
    from dataclasses import replace

    setup = make(*EVALUATED)
    init = torch.randn(setup.geometry.latent_shape, generator=torch.Generator().manual_seed(5))
    sigmas = torch.linspace(0.3, 0, 5, dtype=torch.float64)
    setup = replace(setup, canvas=Canvas(setup.geometry, sigmas, Init(init[None])))
    base = base_pictures(setup, [0], [7])
    noise = torch.randn(setup.geometry.latent_shape, generator=torch.Generator().manual_seed(7))
    begun = setup.geometry.pack(partly_noised(init, noise, 0.3)[None]).to(setup.policy.device)
    begun = setup.policy.decode(begun, setup.geometry)
    near, far = (base - begun).square().mean(), (base_pictures(make(*EVALUATED), [0], [7]) - begun).square().mean()
    assert near < far
    assert evaluate(setup, 0).images.shape == (3, 3, 64, 64)


def test_an_evaluated_prompt_begins_from_its_own_picture_and_a_strange_one_from_the_first(make):
    setup = make()
    first, second = setup.config.prompts[:2]
    assert init_of(setup, [second, "another", first, second]) == [1, 0, 0, 1]


def test_a_stop_leaves_the_evaluation_at_the_end_out(make):
    setup = make(*EVALUATED[:1])
    asked = iter([False, False, True])
    reason, _, events = run(setup, control=Asked(lambda: next(asked)))
    assert reason == "stopped"
    assert [e.iteration for e in of(events, Evaluated)] == [0]


def test_a_run_whose_rewards_rise_no_more_says_so_and_draws_the_evaluation_at_the_end(make):
    setup = make(*EVALUATED[:1])
    control, events, state = Control(), [], new_state(setup)
    early = EarlyStop(setup.config.weights, 2, control.stop)
    early.best = dict.fromkeys(setup.config.weights, float("inf"))

    def listen(event):
        early(event)
        events.append(event)

    reason = str(train(setup, state, on_event=listen, save=lambda s: None, control=control))
    assert reason == "no trained reward has reached a new best for 2 iterations"
    assert [e.iteration for e in of(events, Evaluated)] == [0, 2]
    assert events[-1].state == reason


def test_a_cancel_during_the_last_evaluation_leaves_the_run_complete(make):
    setup, done = make(*EVALUATED[:1]), []

    def listen(event):
        done.extend([event] if isinstance(event, IterationDone) and event.iteration == 4 else [])

    def cancel():
        if done:
            raise Stopped

    setup.policy.before_call = cancel
    assert train(setup, new_state(setup), on_event=listen, save=lambda s: None).kind == "complete"


def test_a_resumed_run_has_the_evaluations_of_the_uninterrupted_one(config_file, tmp_path):
    def config(folder, *settings):
        place = f"run.folder={str(tmp_path / folder)!r}"
        return load_config(config_file(), [place, "run.iterations=6", *EVALUATED, *settings])

    start_run(config("whole"))
    asked = iter([False, False, False, True])
    start_run(config("run"), control=Asked(lambda: next(asked)))
    start_run(config("run", "evaluation.every=2"), resume=True)
    tables = []
    for folder in ("whole", "run"):
        with sqlite3.connect(tmp_path / folder / DATABASE) as database:
            shown = database.execute("SELECT * FROM evaluations").fetchall()
            tables.append((shown, database.execute("SELECT * FROM evaluation_scores").fetchall()))
    assert tables[0] == tables[1]
    assert {row[0] for row in tables[0][0]} == {0, 2, 4, 6}
    assert all((tmp_path / "run" / row[4]).is_file() for row in tables[0][0])
    assert all(math.isfinite(row[3]) for row in tables[0][1])
    # other prompts may be looked at when a run goes on
    start_run(config("run", "evaluation.prompts=['a red apple']", "run.iterations=7"), resume=True)
