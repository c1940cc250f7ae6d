"""Where candidates are compared: after the step, in the clean picture expected there, or at the end."""

import pytest
import torch

from trainer.choices import DISTANCES
from trainer.objectives.neighbor import targets
from trainer.objectives.objective import objective_of
from trainer.settings.config import Config, GrpoSettings, ModelSettings, RewardSettings, SamplingSettings
from trainer.stages.advantages import group_advantages
from trainer.stages.rollout import rollout
from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS

P, G, T, SHAPE = 2, 5, 4, (3, 2)
KEPT = [0, 1, 3]


def neighbor(distance: str, **grpo):
    known = {"distance": distance, "group_size": G, "anchors": 2, "trained_steps": 3, **grpo}
    rewards = (RewardSettings("colourfulness"),)
    sampling = SamplingSettings(steps=T)
    return objective_of(Config(ModelSettings("none"), ("a",), rewards, grpo=GrpoSettings(**known), sampling=sampling))


def made_up(x, sigma, rows):
    return torch.tanh(x) * sigma.view(-1, 1, 1) + rows.view(-1, 1, 1) / 10


def drawn(objective):
    noise = torch.cat([objective.noise(seed, SHAPE) for seed in range(P)])
    rows = torch.arange(P).repeat_interleave(G)
    return rollout(made_up, noise, rows, sigma_grid(T, 1.5), SOLVERS["dpm++2m"], KEPT)


def test_what_candidates_are_compared_by():
    kept = drawn(neighbor("next"))
    sigma = kept.sigma.view(-1, 1, 1, 1)
    for distance, points, leaps in (
        ("next", kept.x_next, kept.step_size),
        ("clean", kept.x - sigma * kept.v, -kept.sigma),
        ("end", kept.x_0.expand_as(kept.x), -kept.sigma),
    ):
        found = targets(kept, distance)
        torch.testing.assert_close(found[0], points)
        torch.testing.assert_close(found[1], leaps)


def test_at_the_last_step_the_clean_picture_is_the_end():
    """DPM-Solver++'s last step leads to the picture that is expected there."""
    kept = drawn(neighbor("next"))
    torch.testing.assert_close(targets(kept, "clean")[0][-1], targets(kept, "end")[0][-1])


@pytest.mark.parametrize("distance", DISTANCES)
def test_before_the_first_update_the_ratio_is_one_and_the_gradient_is_the_joint_force(distance):
    objective = neighbor(distance)
    kept, advantages = drawn(objective), group_advantages(torch.arange(P * G).view(P, G).sin())[0]
    pairs = objective.pairs(P, generator=torch.Generator().manual_seed(0))
    loss = objective.prepare(kept, advantages)
    row = pairs.prompt * G + pairs.anchor
    v = kept.v[pairs.step, row].clone().requires_grad_(True)
    result = loss(pairs, v, None)
    assert result.log_ratio.abs().max() == 0
    result.loss.sum().backward()
    points, leaps = targets(kept, distance)
    groups = points.unflatten(1, (P, G))[pairs.step, pairs.prompt]  # [M, G, *SHAPE]
    pull = (advantages[pairs.prompt][..., None, None] * groups).sum(1)
    force = -2 * (leaps[pairs.step] / loss.tau[pairs.step, pairs.prompt]).view(-1, 1, 1) * pull
    torch.testing.assert_close(v.grad, force, rtol=1e-4, atol=1e-5)
    assert v.grad.abs().max() > 0


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_anchor_moves_towards_the_better_candidate(distance):
    objective = neighbor(distance)
    kept = drawn(objective)
    advantages = torch.zeros(P, G)
    advantages[:, 1], advantages[:, 2] = 1.0, -1.0
    pairs = objective.pairs(P, generator=torch.Generator().manual_seed(0))
    loss, row = objective.prepare(kept, advantages), pairs.prompt * G + pairs.anchor
    v = kept.v[pairs.step, row].clone().requires_grad_(True)
    before = loss(pairs, v, None)
    before.loss.sum().backward()
    after = loss(pairs, (v - 1e-3 * v.grad / v.grad.norm()).detach(), None)
    assert (after.log_ratio[:, 1] > after.log_ratio[:, 2]).all()
