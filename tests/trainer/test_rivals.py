"""What Neighbor GRPO is compared with: formulas as published, noise where it belongs, marginals that stay."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from trainer.objectives.nft import ForwardLoss, Renoised
from trainer.objectives.objective import objective_of
from trainer.objectives.sde import GaussianLoss, log_probability
from trainer.settings.config import Config, GrpoSettings, ModelSettings, RewardSettings, SamplingSettings
from trainer.stages.anchors import Pairs
from trainer.stages.rollout import Trajectories, rollout
from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS
from trainer.stages.stochastic import Stochastic, dance_grpo_step, flow_grpo_step

SDES = ("flow-grpo", "dance-grpo", "mix-grpo")
G, T, P = 4, 6, 3
SHAPE = (2, 3)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objective(name: str, **grpo):
    known = {"objective": name, "group_size": G, "anchors": G, "quasi_norm": 2.0, "noise_level": 0.5, **grpo}
    rewards = (RewardSettings("colourfulness"),)
    return objective_of(
        Config(ModelSettings("none"), ("a",), rewards, grpo=GrpoSettings(**known), sampling=SamplingSettings(steps=T))
    )


def published_flow(x, v, sigma, sigma_next, sigma_1, a):
    """As in the code of Flow-GRPO, number by number."""
    dt = sigma_next - sigma
    std = math.sqrt(sigma / (1 - (sigma_1 if sigma == 1 else sigma))) * a
    mean = x * (1 + std**2 / (2 * sigma) * dt) + v * (1 + std**2 * (1 - sigma) / (2 * sigma)) * dt
    return mean, std * math.sqrt(-dt)


def published_dance(x, v, sigma, sigma_next, sigma_1, eta):
    """As in the code of DanceGRPO."""
    dsigma, x_0 = sigma_next - sigma, x - sigma * v
    score = -(x - x_0 * (1 - sigma)) / sigma**2
    return x + dsigma * v - 0.5 * eta**2 * score * dsigma, eta * math.sqrt(-dsigma)


@pytest.mark.parametrize(("step", "published"), [(flow_grpo_step, published_flow), (dance_grpo_step, published_dance)])
def test_mean_and_deviation_are_those_of_the_published_code(step, published):
    grid = sigma_grid(9, 2.0).tolist()
    x, v = normal(1, 9, *SHAPE).double(), normal(2, 9, *SHAPE).double()
    sigma, size = torch.tensor(grid[:-1], dtype=torch.float64), torch.from_numpy(np.diff(grid))
    mean, std = step(x, v, sigma, size, 0.7)
    for j in range(9):
        expected = published(x[j].numpy(), v[j].numpy(), grid[j], grid[j + 1], grid[1], 0.7)
        np.testing.assert_allclose(mean[j].numpy(), expected[0], rtol=1e-9, atol=1e-12)
        assert std[j].item() == pytest.approx(expected[1], rel=1e-9)


def test_the_log_probability_is_the_mean_over_elements():
    x, mean, std = normal(1, 5, 7), normal(2, 5, 7), normal(3, 5).abs() + 0.1
    expected = Normal(mean, std[:, None]).log_prob(x).mean(1) + math.log(2 * math.pi) / 2
    torch.testing.assert_close(log_probability(x, mean, std), expected)


@pytest.mark.parametrize("target", [0.5, 1.7])
@pytest.mark.parametrize(("step", "level"), [(flow_grpo_step, 0.7), (dance_grpo_step, 0.3), (dance_grpo_step, 1.0)])
def test_a_thousand_steps_reach_a_gaussian_target(step, level, target):
    """Each step is linear in x, so the variance is followed exactly: no samples, no luck."""
    grid = sigma_grid(1000, 3.0).tolist()
    variance = 1.0
    for s, s_next in zip(grid, grid[1:], strict=False):
        x = torch.ones(1, 1, dtype=torch.float64)
        v = velocity_to_gaussian(target)(x, s)
        if s_next == 0:
            gain, std = (x + (s_next - s) * v).item(), 0.0
        else:
            mean, spread = step(x, v, x.new_tensor([s]), x.new_tensor([s_next - s]), level)
            gain, std = mean.item(), spread.item()
        variance = gain**2 * variance + std**2
    assert math.sqrt(variance) == pytest.approx(target, rel=5e-3)


def velocity_to_gaussian(target: float):
    """The exact velocity towards N(0, target^2)."""

    def velocity(x, s):
        variance = (1 - s) ** 2 * target**2 + s**2
        return (s - (1 - s) * target**2) / variance * x

    return velocity


@pytest.mark.parametrize("step", [flow_grpo_step, dance_grpo_step])
def test_the_solver_adds_the_noise_that_the_step_says(step):
    """The spread of 20,000 samples after each step, against the same step followed exactly."""
    grid, target = sigma_grid(5, 1.0).tolist(), 1.3
    solver = Stochastic(step, 0.6, lambda j, steps: j < steps - 1)
    variance, x = 1.0, normal(4, 20_000, 1).double()
    for j, (_, v, x_next) in enumerate(solver(velocity_to_gaussian(target), x, grid, seeded(5))):
        one = torch.ones(1, 1, dtype=torch.float64)
        v = velocity_to_gaussian(target)(one, grid[j])
        h = grid[j + 1] - grid[j]
        mean, std = step(one, v, one.new_tensor([grid[j]]), one.new_tensor([h]), 0.6)
        gain, spread = (mean.item(), std.item()) if j < 4 else ((one + h * v).item(), 0.0)
        variance = gain**2 * variance + spread**2
        assert x_next.std().item() == pytest.approx(math.sqrt(variance), rel=0.03)


def drawn(rival, seed: int = 0) -> Trajectories:
    """Candidates of P prompts under a velocity that is made up."""
    kept = rival.steps(generator=seeded(seed))
    noise = torch.cat([rival.noise(i, SHAPE) for i in range(P)])
    rows = torch.arange(P).repeat_interleave(G)
    return rollout(made_up, noise, rows, sigma_grid(T, 1.0), rival.solver(kept), kept, generator=seeded(seed + 1))


def made_up(x, sigma, rows):
    return torch.tanh(x) * sigma.view(-1, 1, 1) + rows.view(-1, 1, 1) / 10


@pytest.mark.parametrize("name", SDES)
def test_the_last_step_is_never_trained_and_has_no_noise(name):
    for seed in range(20):
        rival = objective(name, trained_steps=3)
        assert T - 1 not in rival.steps(generator=seeded(seed))
    x = normal(1, 2, *SHAPE)
    solver = objective(name).solver([0])
    *_, (x_last, v_last, end) = solver(lambda x, s: torch.tanh(x), x, sigma_grid(T, 1.0).tolist(), seeded())
    torch.testing.assert_close(end, x_last - sigma_grid(T, 1.0)[-2].item() * v_last)


def test_all_steps_but_the_last_are_trained_if_none_are_named():
    assert objective("flow-grpo").steps(generator=seeded()) == list(range(T - 1))


def test_first_noises_are_one_in_dance_grpo_and_others_in_flow_grpo():
    one, other = objective("dance-grpo").noise(3, SHAPE), objective("flow-grpo").noise(3, SHAPE)
    assert all(torch.equal(one[0], noise) for noise in one)
    assert all(not torch.equal(other[0], noise) for noise in other[1:])
    assert one.shape == other.shape == (G, *SHAPE)


def test_only_the_window_of_mix_grpo_is_noisy():
    rival = objective("mix-grpo", trained_steps=2)
    windows = {tuple(rival.steps(generator=seeded(seed))) for seed in range(50)}
    assert windows == {(j, j + 1) for j in range(T - 2)}
    grid = sigma_grid(T, 1.0).tolist()
    solver = rival.solver([1, 2])
    for j, (x, v, x_next) in enumerate(solver(lambda x, s: torch.tanh(x), normal(1, 2, *SHAPE), grid, seeded())):
        euler = torch.allclose(x_next, x + (grid[j + 1] - grid[j]) * v)
        assert euler == (j not in (1, 2))


@pytest.mark.parametrize("name", [*SDES, "nft"])
def test_updates_share_the_candidates_out(name):
    rival = objective(name, trained_steps=2)
    pairs = rival.pairs(P, generator=seeded())
    first, second = rival.shares(pairs, 2)
    together = {(int(p), int(a), int(s)) for share in (first, second) for p, a, s in zip(*triples(share), strict=True)}
    assert len(together) == len(first) + len(second) == len(pairs) == P * G * 2
    assert not set(first.anchor.tolist()) & set(second.anchor.tolist())
    assert first.total == second.total == len(pairs) // 2


def triples(pairs: Pairs):
    return pairs.prompt, pairs.anchor, pairs.step


@pytest.mark.parametrize("name", SDES)
def test_before_the_first_update_every_ratio_is_one_and_the_gradient_is_reinforce(name):
    rival = objective(name, trained_steps=2)
    kept, advantages = drawn(rival), normal(7, P, G)
    pairs = rival.pairs(P, generator=seeded())
    row = pairs.prompt * G + pairs.anchor
    v = kept.v[pairs.step, row].clone().requires_grad_(True)
    result = rival.prepare(kept, advantages / math.sqrt(G))(pairs, v, None)
    assert result.log_ratio.abs().max() == 0
    assert result.velocity_error.max() == 0
    result.loss.sum().backward()

    again = kept.v[pairs.step, row].clone().requires_grad_(True)
    x, h = kept.x[pairs.step, row], kept.step_size[pairs.step]
    mean, std = rival.transition(x, again, kept.sigma[pairs.step], h, 0.5)
    likely = Normal(mean, std[:, None, None]).log_prob(kept.x_next[pairs.step, row]).mean((1, 2))
    (-likely * advantages[pairs.prompt, pairs.anchor]).sum().backward()
    torch.testing.assert_close(v.grad, again.grad)
    assert v.grad.abs().min() > 0


def test_an_advantage_counts_up_to_five_deviations():
    rival = objective("flow-grpo")
    loss = rival.prepare(drawn(rival), torch.tensor([[9.0, -9, 1, -1]] * P) / math.sqrt(G))
    torch.testing.assert_close(loss.advantages[0], torch.tensor([5.0, -5, 1, -1]))


@pytest.mark.parametrize(("advantage", "moved", "clipped"), [(1.0, 1e-2, True), (-1.0, 1e-2, False)])
def test_a_narrow_clip_ends_what_the_ratio_gains(advantage, moved, clipped):
    rival = objective("flow-grpo", trained_steps=1, clip=1e-4)
    kept = drawn(rival)
    pairs = Pairs(*torch.zeros(3, 1, dtype=torch.int64))
    loss = GaussianLoss(kept, torch.full((P, G), advantage), flow_grpo_step, 0.5, clip=1e-4)
    towards = (kept.x_next - kept.x)[0, :1] / kept.step_size[0] - kept.v[0, :1]  # the velocity of what was drawn
    v = (kept.v[0, :1] + moved * towards).requires_grad_(True)
    result = loss(pairs, v, None)
    result.loss.sum().backward()
    assert result.log_ratio.item() > 1e-4
    assert (v.grad.abs().max() == 0) == clipped
    assert result.clip_fraction.item() == clipped
    assert result.kl_old.item() > 0


def test_pictures_are_noised_again_on_the_line_to_their_noise():
    grid = sigma_grid(T, 1.0)
    steps = list(
        Renoised(SOLVERS["dpm++2m"])(lambda x, s: torch.tanh(x), normal(1, 2, *SHAPE), grid.tolist(), seeded())
    )
    *_, (_, _, x_0) = SOLVERS["dpm++2m"](lambda x, s: torch.tanh(x), normal(1, 2, *SHAPE), grid.tolist())
    assert len(steps) == T
    for s, (x, v, end) in zip(grid.tolist(), steps, strict=False):
        torch.testing.assert_close(end, x_0)
        torch.testing.assert_close(x - s * v, x_0)  # of rectified flow
    assert not torch.allclose(steps[0][1], steps[1][1])


def test_on_policy_nft_pulls_towards_good_pictures_and_away_from_bad_ones():
    """Its gradient is 2 r - 1 times that of flow matching, over the prediction's mean error."""
    rival = objective("nft", trained_steps=2)
    kept, advantages = drawn(rival), normal(7, P, G)
    pairs = rival.pairs(P, generator=seeded())
    row = pairs.prompt * G + pairs.anchor
    v = normal(8, len(pairs), *SHAPE).requires_grad_(True)
    loss = rival.prepare(kept, advantages / math.sqrt(G))
    assert isinstance(loss, ForwardLoss)
    result = loss(pairs, v, None)
    result.loss.sum().backward()
    sigma = kept.sigma[pairs.step].view(-1, 1, 1)
    off = kept.x[pairs.step, row] - sigma * v.detach() - kept.x_0[row]
    weight = off.abs().mean((1, 2), keepdim=True) * off[0].numel()
    side = (advantages[pairs.prompt, pairs.anchor] / 5).clamp(-1, 1).view(-1, 1, 1)
    torch.testing.assert_close(v.grad, side * -2 * sigma * off / weight)
