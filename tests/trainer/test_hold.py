"""`grpo.hold`: some steps are trained, and the model's velocity at the others stays what it was."""

from contextlib import contextmanager

import pytest
import torch
from loop_runs import run, setup_of

from trainer.engine import grpo
from trainer.engine.drawing import Clock, policy_velocity
from trainer.engine.grpo import collect, gradient, pairs_of
from trainer.engine.setup import drawn_in
from trainer.errors import ConfigError
from trainer.objectives.objective import objective_of
from trainer.planning.advice import cost
from trainer.settings.config_file import load_config
from trainer.stages.guards import divergence
from trainer.stages.update import LOSS_SCALE

T, P, B = 4, 2, 3
EARLY = ["sampling.steps=4", "grpo.trained_steps=1", "grpo.step_choice='early'"]
LATE = [*EARLY[:2], "grpo.step_choice='late'"]
MANY = [f"grpo.prompts_per_iteration={P}", "grpo.group_size=4", f"grpo.anchors={B}"]
REWARDS = "[[rewards]]\nkind = 'colourfulness'\n"


@pytest.fixture
def make(config_file):
    return lambda *overrides: setup_of(config_file, overrides=[*MANY, *overrides], rewards=REWARDS)


def disturb(setup) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in setup.lora.values():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))


def gradient_of(setup, advantages=None) -> tuple[torch.Tensor, object, object]:
    """The gradient of the first iteration's pairs, of a plain loss; its group and its pairs."""
    group = collect(setup, 0, Clock(setup.policy.device))
    pairs = pairs_of(setup, group, 0)
    told = group.advantages if advantages is None else advantages(group.advantages)
    loss_of = setup.objective.prepare(group.candidates.trajectories, told)
    gradient(setup, group.candidates, pairs, loss_of, 3)
    return torch.cat([p.grad.flatten() for p in setup.lora.values()]) / LOSS_SCALE, group, pairs


@pytest.mark.parametrize(("overrides", "trained"), [(EARLY, 0), (LATE, T - 1)])
def test_each_of_the_other_steps_has_its_turn_with_the_same_anchors(config_file, overrides, trained):
    config = load_config(config_file(), [*MANY, *overrides, "grpo.hold=2"])
    objective, held = objective_of(config), set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        steps = objective.steps(generator=generator)
        pairs = objective.pairs(P, generator=generator)
        assert len(steps) == 2
        assert trained in steps
        held |= set(steps) - {trained}
        rows = {
            k: [pair for pair, its in zip(pairs.prompt.tolist(), pairs.step.tolist(), strict=True) if its == k]
            for k in (0, 1)
        }
        assert rows[0] == rows[1] == [p for p in range(P) for _ in range(B)]
        first, second = (pairs.anchor[pairs.step == k].tolist() for k in (0, 1))
        assert first == second
    assert held == set(range(T)) - {trained}


@pytest.mark.parametrize("overrides", [EARLY, LATE])
def test_at_the_start_it_changes_no_gradient(make, overrides):
    """The policy is the model there, and the square of nothing has no slope: what trains keeps its weight."""
    free, _, _ = gradient_of(make(*overrides))
    held, _, pairs = gradient_of(make(*overrides, "grpo.hold=50"))
    assert len(pairs) == 2 * P * B
    assert free.abs().max() > 0
    torch.testing.assert_close(held, free, rtol=1e-4, atol=1e-6 * free.abs().max().item())


@pytest.mark.parametrize("overrides", [EARLY, LATE])
def test_its_gradient_is_that_of_the_velocitys_divergence_at_the_held_step(make, overrides):
    """Without advantages nothing else is left: weight x the mean over the anchors, by a second way."""
    weight = 7.0
    setup = make(*overrides, f"grpo.hold={weight}")
    disturb(setup)
    found, group, pairs = gradient_of(setup, torch.zeros_like)
    for p in setup.lora.values():
        p.grad = None
    t, at = group.candidates.trajectories, 1 if overrides is EARLY else 0
    rows = (pairs.prompt * 4 + pairs.anchor)[pairs.step == at]
    x, sigma = t.x[at, rows], t.sigma[at].expand(len(rows))
    velocity = policy_velocity(setup, group.candidates.prompts, 3)
    v = velocity(x, sigma, rows // 4)
    with torch.no_grad(), setup.policy.reference():
        v_reference = velocity(x, sigma, rows // 4)
    loss = weight * divergence(v, v_reference, "velocity").mean()
    expected = torch.autograd.grad(loss, list(setup.lora.values()))
    expected = torch.cat([g.flatten() for g in expected])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(("overrides", "asked"), [([], P * B), (["grpo.kl_weight=1"], 2 * P * B)])
def test_the_base_model_is_asked_at_the_held_step_alone_unless_a_guard_needs_it(make, monkeypatch, overrides, asked):
    setup, inside, rows_asked = make(*EARLY, "grpo.hold=2", *overrides), [], []
    original = setup.policy.reference

    @contextmanager
    def reference():
        inside.append(True)
        with original():
            yield
        inside.pop()

    def counted(*args, **options):
        velocity = policy_velocity(*args, **options)

        def count(x, sigma, rows):
            rows_asked.extend(rows.tolist() if inside else ())
            return velocity(x, sigma, rows)

        return count

    monkeypatch.setattr(setup.policy, "reference", reference)
    monkeypatch.setattr(grpo, "policy_velocity", counted)
    gradient_of(setup)
    assert len(rows_asked) == asked


def test_the_other_steps_stay_nearer_to_where_they_were(make):
    fast = ["optimizer.learning_rate=0.02", "optimizer.warmup=0", "run.iterations=8", "grpo.distance='end'"]
    moved = {}
    for weight in (0, 300):
        setup = make(*EARLY, *fast, f"grpo.hold={weight}")
        run(setup)
        moved[weight] = divergences(setup)
    assert moved[300][0] > 0
    assert all(held < 0.5 * free for held, free in zip(moved[300][1:], moved[0][1:], strict=True)), moved


def divergences(setup) -> list[float]:
    """Of the velocity from the model's, at each step of new trajectories."""
    group = collect(drawn_in(setup, T), 99, Clock(setup.policy.device))
    t, rows = group.candidates.trajectories, torch.arange(P * 4)
    velocity = policy_velocity(setup, group.candidates.prompts, P * 4)
    found = []
    for k in range(T):
        with torch.no_grad():
            v = velocity(t.x[k], t.sigma[k].expand(len(rows)), rows // 4)
            with setup.policy.reference():
                reference = velocity(t.x[k], t.sigma[k].expand(len(rows)), rows // 4)
        found.append(divergence(v, reference, "velocity").mean().item())
    return found


@pytest.mark.parametrize("overrides", [[], EARLY[:2], ["grpo.step_choice='early'"]])
def test_without_steps_to_hold_it_is_refused(config_file, overrides):
    with pytest.raises(ConfigError, match=r"grpo\.hold = 1.*step_choice"):
        load_config(config_file(grpo="group_size = 4"), [*overrides, "grpo.hold=1"])


def test_a_rival_holds_nothing(config_file):
    with pytest.raises(ConfigError, match=r"grpo\.hold = 1\.0: must be 0: nft has nothing of the kind"):
        load_config(config_file(grpo="group_size = 4"), [*EARLY, "grpo.objective='nft'", "grpo.hold=1"])


def test_the_plan_counts_its_passes(config_file):
    free, held = (cost(load_config(config_file(), [*MANY, *EARLY, f"grpo.hold={w}"])) for w in (0, 5))
    assert (free.update, free.reference) == (P * B, 0)
    assert (held.update, held.reference) == (2 * P * B, 2 * P * B)
