"""The loop: what one iteration does."""

from functools import partial

import pytest
import torch
from host_reads import HostReads
from leaping import accumulate_gradient
from loop_runs import run, same, setup_of, weights

from trainer.engine.drawing import Clock, policy_velocity
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state, set_optimizer
from trainer.events import Drawn, Finished, IterationDone, SelfTested, Started
from trainer.settings.config import OptimizerSettings
from trainer.stages.rollout import rollout
from trainer.stages.solvers import SOLVERS


@pytest.fixture
def make(config_file):
    return partial(setup_of, config_file)


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
    assert event.anchors.sum(1).tolist() == [4, 4]  # two at each of two steps, all different
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
    batches = [f"run.micro_batch={micro_batch}", f"run.rollout_batch={micro_batch}"]
    setup = make(overrides=["run.iterations=2", *batches, f"model.dtype='{dtype}'"])
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
