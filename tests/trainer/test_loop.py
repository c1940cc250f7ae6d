"""The loop: what one iteration does, and what happens when something in it goes wrong."""

import math
from dataclasses import replace

import pytest
import torch
from asked import Asked
from host_reads import HostReads
from leaping import accumulate_gradient

from trainer.engine.drawing import Clock, policy_velocity
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state, set_optimizer
from trainer.errors import Stopped
from trainer.events import Drawn, Ending, Finished, IterationDone, SelfTested, Skipped, Started
from trainer.settings.config import OptimizerSettings
from trainer.settings.config_file import load_config
from trainer.stages.rollout import rollout
from trainer.stages.solvers import SOLVERS
from trainer.training.loop import train
from trainer.training.prepare import prepare


class Recorder(list):
    def __call__(self, event):
        self.append(event)

    def of(self, kind):
        return [e for e in self if isinstance(e, kind)]


class ScriptedReward:
    """Returns what `script(call number, N)` says."""

    def __init__(self, script):
        self.script, self.calls = script, 0

    def score(self, images, prompts):
        assert len(images) == len(prompts)
        self.calls += 1
        return self.script(self.calls - 1, len(images))


@pytest.fixture
def make(config_file):
    def make(reward=None, overrides=(), **sections):
        setup = prepare(load_config(config_file(**sections), overrides))
        return replace(setup, rewards={"colourfulness": reward}) if reward else setup

    return make


def run(setup, state=None, **options):
    events, state = Recorder(), state or new_state(setup)
    reason = str(train(setup, state, on_event=events, save=lambda s: events(("saved", s.iteration)), **options))
    return reason, state, events


def weights(setup):
    return {name: p.detach().clone() for name, p in setup.lora.items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.also_on_card
def test_an_iteration_reports_everything_a_listener_needs(make):
    setup = make(
        rewards='[[rewards]]\nkind = "colourfulness"\n[[rewards]]\nkind = "jpeg-compressibility"\nheld_out = true'
    )
    reason, state, events = run(setup)
    assert reason == "complete"
    assert [type(e) for e in events if not isinstance(e, tuple)] == [
        Started,
        SelfTested,
        *[Drawn, IterationDone] * 3,
        Finished,
    ]
    assert [e for e in events if isinstance(e, tuple)] == [("saved", 2), ("saved", 3)]
    assert state.updates == 3
    event = events.of(IterationDone)[0]
    assert event.images.shape == (8, 3, 64, 64)
    assert {name: s.shape for name, s in event.scores.items()} == {
        "colourfulness": (2, 4),
        "jpeg-compressibility": (2, 4),
    }
    assert event.anchors.sum(1).tolist() == [2, 2]
    assert event.advantages.abs().pow(0.8).sum(1).tolist() == pytest.approx([1, 1], abs=1e-4)  # the quasi-norm, p = 0.8
    expected = {"loss", "grad_norm", "clip_fraction", "kl_old", "ratio_error", "flatness", "diversity", "learning_rate"}
    expected |= {f"seconds/{phase}" for phase in ("rollout", "decode", "reward", "update")}
    expected |= {"reward/colourfulness", "reward_std/jpeg-compressibility", "skipped_groups", "seconds"}
    assert expected <= event.metrics.keys()
    assert event.metrics["reward/colourfulness"] == pytest.approx(event.scores["colourfulness"].mean().item(), rel=1e-5)


@pytest.mark.also_on_card
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("micro_batch", [3, 4, 8])
def test_the_ratio_is_exactly_one_before_the_first_update(make, micro_batch, dtype):
    setup = make(overrides=["run.iterations=2", f"run.micro_batch={micro_batch}", f"model.dtype='{dtype}'"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in setup.lora.values():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    _, _, events = run(setup)
    assert [e.metrics["ratio_error"] for e in events.of(IterationDone)] == [0, 0]


@pytest.mark.also_on_card
def test_a_second_update_on_the_same_rollout_moves_the_ratio(make):
    setup = make(overrides=["grpo.updates_per_rollout=3", "optimizer.learning_rate=0.05", "grpo.clip=0.0001"])
    _, state, events = run(setup)
    last = events.of(IterationDone)[-1].metrics
    assert state.updates == 9
    assert last["kl_old"] > 0
    assert last["clip_fraction"] > 0


@pytest.mark.also_on_card
def test_the_kl_penalty_is_zero_at_the_start_and_holds_the_policy_back_later(make):
    moved, fast = {}, ["optimizer.learning_rate=0.02", "optimizer.warmup=0", "run.iterations=6"]
    for weight in (0.0, 1e4):
        setup = make(overrides=[f"grpo.kl_weight={weight}", *fast])
        _, _, events = run(setup)
        assert events.of(IterationDone)[0].metrics["kl_reference"] == pytest.approx(0, abs=1e-7)
        moved[weight] = sum(p.square().sum().item() for name, p in setup.lora.items() if "lora_B" in name)
    assert events.of(IterationDone)[-1].metrics["kl_reference"] > 0
    assert moved[1e4] < 0.9 * moved[0.0]


def test_the_held_out_reward_changes_nothing(make):
    trained = "[[rewards]]\nkind = 'colourfulness'\n"
    held_out = "[[rewards]]\nkind = 'jpeg-compressibility'\nheld_out = true\n"
    alone, watched = make(rewards=trained), make(rewards=trained + held_out)
    run(alone)
    run(watched)
    assert same(weights(alone), weights(watched))


def test_other_settings_hold_for_an_optimizer_that_is_under_way(make):
    setup = make()
    state = new_state(setup)
    set_optimizer(state, OptimizerSettings(beta1=0.5, beta2=0.6, weight_decay=0.25))
    (group,) = state.optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.5, 0.6), 0.25)


@pytest.mark.also_on_card
def test_the_micro_batch_changes_nothing_but_rounding(make):
    results = {}
    for size in (1, 3, 8):
        setup = make(overrides=[f"run.micro_batch={size}"])
        group = collect(setup, 0, Clock(setup.policy.device))
        improve(setup, new_state(setup), group, pairs_of(setup, group, 0))
        results[size] = (group.scores["colourfulness"], weights(setup))
    for size in (3, 8):
        torch.testing.assert_close(results[size][0], results[1][0], rtol=1e-4, atol=1e-4)
        # Adam's first step is lr * sign(gradient): equal up to gradients that are rounding noise
        different = sum((results[size][1][n] - w).abs().gt(1e-5).sum().item() for n, w in results[1][1].items())
        assert different < 0.02 * sum(w.numel() for w in results[1][1].values())


# two groups in each iteration; a fault is forgiven less often than a chance
@pytest.mark.parametrize(
    ("value", "iterations", "cause"),
    [(0.25, 15, "no group has rewards that differ"), (math.nan, 3, "a reward was not a finite number")],
)
def test_groups_without_an_update_one_after_the_other_end_the_run(make, value, iterations, cause):
    overrides = ["run.iterations=20", "sampling.steps=2"]
    setup = make(ScriptedReward(lambda call, n: torch.full((n,), value)), overrides=overrides)
    before = weights(setup)
    reason, state, events = run(setup)
    assert reason.startswith("gave up: one iteration after the other without an update")
    assert reason.endswith(cause)
    assert len(events.of(Skipped)) == iterations
    assert [e for e in events if isinstance(e, tuple)][-1] == ("saved", iterations)
    assert (state.updates, state.iteration) == (0, iterations)
    assert same(weights(setup), before)


def test_a_reward_of_0_and_1_that_is_alike_by_chance_does_not_end_the_run(make):
    """At a success of 1 in 20, three groups of 12 in a row are alike with a chance of 16 %."""
    setup = make(
        ScriptedReward(lambda call, n: torch.eye(n)[0] if call == 28 else torch.zeros(n)),
        overrides=["run.iterations=31", "grpo.prompts_per_iteration=1", "sampling.steps=2"],
    )
    reason, state, _ = run(setup)
    assert (reason, state.updates) == ("complete", 1)


def test_two_bad_iterations_are_forgiven(make):
    def script(call, n):
        return torch.full((n,), float("nan")) if call in (1, 2, 4, 5) else torch.arange(n).float()

    setup = make(ScriptedReward(script), overrides=["run.iterations=7"])
    reason, state, events = run(setup)
    assert reason == "complete"
    assert [e.iteration for e in events.of(Skipped)] == [1, 2, 4, 5]
    assert {e.reason for e in events.of(Skipped)} == {"a reward was not a finite number"}
    assert state.updates == 3


def test_one_bad_group_does_not_stop_the_other(make):
    def script(call, n):
        scores = torch.arange(n).float()
        scores[0] = float("inf")  # in the first of two groups
        return scores

    setup = make(ScriptedReward(script))
    _, state, events = run(setup)
    event = events.of(IterationDone)[0]
    assert state.updates == 3
    assert event.metrics["skipped_groups"] == 1
    assert event.advantages[0].eq(0).all()
    assert event.anchors[0].sum() == 0
    assert event.anchors[1].sum() == 2
    assert all(torch.isfinite(p).all() for p in setup.lora.values())


@pytest.mark.also_on_card
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(make):
    setup = make(overrides=["run.iterations=1"])
    run(setup)
    state = new_state(setup)
    state.iteration = 0
    before, original = weights(setup), setup.policy.velocity

    def broken(*inputs):
        velocity = original(*inputs)

        def sometimes(x, sigma, rows):
            v = velocity(x, sigma, rows)
            return v * float("nan") if torch.is_grad_enabled() else v

        return sometimes

    setup.policy.velocity = broken
    _, state, events = run(setup, state)
    assert events.of(Skipped)[0].reason == "the gradient was not finite"
    assert same(weights(setup), before)
    assert state.updates == 0
    assert not state.optimizer.state


def test_a_stop_is_answered_between_iterations_and_saves(make):
    setup = make(overrides=["run.iterations=50"])
    asked = iter([False, False, False, False, True])
    reason, state, events = run(setup, control=Asked(lambda: next(asked)))
    assert reason == "stopped"
    assert state.iteration == 4
    assert events[-2:] == [("saved", 4), Finished(4, Ending("stopped"))]


@pytest.fixture(scope="module")
def uninterrupted():
    """Weights and their average at the end of a run that nobody stopped, by device."""
    return {}


@pytest.mark.also_on_card
@pytest.mark.parametrize("calls", [1, 7, 9, 12, 14, 15])  # in rollout, decoding, the first, second and third update
def test_a_stop_in_mid_iteration_undoes_that_iteration_and_loses_nothing(make, device, uninterrupted, calls):
    """Two iterations, a stop `calls` model calls into the third, and on: equals never having stopped."""
    overrides = ["grpo.updates_per_rollout=3", "run.iterations=4"]
    if device not in uninterrupted:
        whole = make(overrides=overrides)
        _, ended, _ = run(whole)
        uninterrupted[device] = weights(whole), ended.average.shadow
    expected, average = uninterrupted[device]

    setup = make(overrides=overrides)
    total, seen, state = [0], [], new_state(setup)

    def count():
        total[0] += 1
        if state.iteration == 2:
            seen.append(total[0])
            if len(seen) == calls:
                raise Stopped

    setup.policy.before_call = count
    reason, state, events = run(setup, state)
    assert reason == "stopped"
    assert len(seen) == calls
    assert (state.iteration, state.updates) == (2, 6)
    assert events[-1] == Finished(2, Ending("stopped"))
    assert all(p.grad is None for p in setup.lora.values())
    setup.policy.before_call = lambda: None
    reason, state, _ = run(setup, state)
    assert reason == "complete"
    assert same(weights(setup), expected)
    assert same(state.average.shadow, average)


def test_only_the_lora_moves_and_the_average_follows(make):
    setup = make()
    base = {n: p.detach().clone() for n, p in setup.policy.network.named_parameters() if not p.requires_grad}
    start = weights(setup)
    _, state, _ = run(setup)
    assert same(base, dict(setup.policy.network.named_parameters()))
    assert not same(weights(setup), start)
    distance = {
        name: sum((w[n] - start[n]).square().sum().item() for n in start)
        for name, w in (("average", state.average.shadow), ("weights", weights(setup)))
    }
    assert 0 < distance["average"] < distance["weights"]


def test_every_neighborhood_has_a_seed_of_its_own(make):
    _, _, events = run(make())
    seeds = [seed for event in events.of(IterationDone) for seed in event.seeds]
    assert len(set(seeds)) == 3 * 2
    _, _, other = run(make(overrides=["run.seed=1"]))
    assert not set(seeds) & {seed for event in other.of(IterationDone) for seed in event.seeds}


def test_the_gradient_is_that_of_the_objective_averaged_over_all_drawn_pairs(make):
    """The objective written out for one pair after the other, with the distances' table and no micro-batch."""
    setup = make(overrides=["optimizer.max_grad_ratio=1e9"])
    group = collect(setup, 0, Clock(setup.policy.device))
    pairs = pairs_of(setup, group, 0)
    assert len(pairs) == 2 * 2 * 2  # P * B * K
    t, losses = group.candidates.trajectories, []
    velocity = policy_velocity(setup, group.candidates.prompts, 4)
    for prompt, anchor, k in zip(pairs.prompt.tolist(), pairs.anchor.tolist(), pairs.step.tolist(), strict=True):
        row, candidates = prompt * 4 + anchor, t.x_next[k, prompt * 4 : prompt * 4 + 4].double()
        table = [[(a - b).square().sum() for b in candidates] for a in candidates]
        tau = sum(table[i][j] for i in range(4) for j in range(4) if i != j) / 12
        sigma, sigma_next = setup.sigmas[t.steps[k]], setup.sigmas[t.steps[k] + 1]
        v = velocity(t.x[k, row : row + 1], t.sigma[k : k + 1], torch.tensor([prompt]))[0].double()
        logits = {}
        for policy, v_policy in (("new", v), ("old", t.v[k, row].double())):
            point = t.x[k, row].double() + (sigma_next - sigma) * v_policy
            logits[policy] = torch.stack([-(c - point).square().sum() / tau for c in candidates]).log_softmax(0)
        losses.append(-(group.advantages[prompt].double() * (logits["new"] - logits["old"]).exp()).sum())
    gradients = torch.autograd.grad(torch.stack(losses).mean(), list(setup.lora.values()))
    expected = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
    metrics, _ = improve(setup, new_state(setup), group, pairs)
    assert metrics["grad_norm"] == pytest.approx(expected, rel=1e-3)


def test_rollout_and_gradients_never_wait_for_the_device(make):
    setup = make(overrides=["grpo.kl_weight=0.1"])
    group = collect(setup, 0, Clock(setup.policy.device))
    velocity = policy_velocity(setup, group.candidates.prompts, 4)
    noise = torch.randn(8, 16, 64)
    with HostReads() as reads:
        rollout(velocity, noise, torch.arange(2).repeat_interleave(4), setup.sigmas, SOLVERS["dpm++2m"], [0, 2])
        tau = torch.ones(2, 2)
        accumulate_gradient(
            velocity,
            group.candidates.trajectories,
            pairs_of(setup, group, 0),
            group.advantages,
            tau,
            clip=0.2,
            micro_batch=4,
            normaliser=8,
            reference=velocity,
            kl_weight=0.1,
        )
    assert reads.seen == []
    with HostReads() as reads:  # the counter counts
        torch.ones(1).item()
    assert reads.seen == ["_local_scalar_dense"]
