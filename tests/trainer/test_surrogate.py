"""The leaping policy and the clipped objective: loops in float64, closed-form gradients, torch's own distributions."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from trainer.stages.advantages import group_advantages, quasi_norm_reweight
from trainer.stages.surrogate import (
    clipped_objective,
    kl_divergence,
    leap,
    log_policy,
    mean_pairwise_distance,
    pairwise_distances,
    softmax_temperature,
    squared_distances,
    trusted_objective,
)

M, G, LATENT = 3, 5, (4, 2)
CLIP = 0.2


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def case():
    """M anchors at different steps: states, velocities, step sizes, candidates x_{j+1}, advantages A', temperatures."""
    x, v, candidates = normal(1, M, *LATENT), normal(2, M, *LATENT), 0.3 * normal(3, M, G, *LATENT)
    step_size, tau = torch.tensor([-0.1, -0.25, -0.4]), torch.tensor([0.7, 2.0, 5.0])
    advantages = quasi_norm_reweight(group_advantages(normal(4, M, G))[0], 0.8)
    return x, v, step_size, candidates, advantages, tau


def policy_by_hand(candidates: np.ndarray, point: np.ndarray, tau: float) -> list[float]:
    weights = [math.exp(-float(((c - point) ** 2).sum()) / tau) for c in candidates]
    return [w / sum(weights) for w in weights]


def test_leap_is_one_first_order_step_of_each_pairs_own_size(case):
    x, v, step_size, *_ = case
    for m in range(M):
        expected = x[m].numpy() + step_size[m].item() * v[m].numpy()
        np.testing.assert_allclose(leap(x, v, step_size)[m].numpy(), expected, atol=1e-6)


def test_policy_is_the_softmax_of_negative_squared_distances(case):
    x, v, step_size, candidates, _, tau = case
    point = leap(x, v, step_size)
    log_pi = log_policy(candidates, point, tau)
    for m in range(M):
        distances = [((c - point[m].numpy()) ** 2).sum() for c in candidates[m].numpy()]
        np.testing.assert_allclose(squared_distances(candidates, point)[m].numpy(), distances, rtol=1e-5)
        expected = policy_by_hand(candidates[m].double().numpy(), point[m].double().numpy(), tau[m].item())
        np.testing.assert_allclose(log_pi[m].exp().numpy(), expected, rtol=1e-4)
        assert log_pi[m].argmax() == np.argmin(distances)  # the nearest is the likeliest
    torch.testing.assert_close(log_pi.exp().sum(-1), torch.ones(M))


def test_ratio_is_exactly_one_before_the_first_update(case):
    x, v, step_size, candidates, advantages, tau = case
    new = log_policy(candidates, leap(x, v.clone().requires_grad_(), step_size), tau)
    old = log_policy(candidates, leap(x, v, step_size), tau)
    result = clipped_objective(new, old, advantages, CLIP)
    assert torch.equal(result.log_ratio, torch.zeros(M, G))
    assert torch.equal(result.clip_fraction, torch.zeros(M))
    assert torch.equal(result.kl_old, torch.zeros(M))
    torch.testing.assert_close(result.loss, torch.zeros(M), atol=1e-6, rtol=0)  # minus the sum of A', which is 0


def gradient_at_theta_old(x, v, step_size, candidates, advantages, tau) -> torch.Tensor:
    v_theta = v.clone().requires_grad_()
    new = log_policy(candidates, leap(x, v_theta, step_size), tau)
    old = log_policy(candidates, leap(x, v, step_size), tau)
    clipped_objective(new, old, advantages, CLIP).loss.sum().backward()
    return v_theta.grad


def test_gradient_at_theta_old_is_the_joint_force_field(case):
    """-(2 / tau) * (s_{j+1} - s_j) * sum_i A'_i x_{j+1}^(i), because the A' of a group add up to 0."""
    _, _, step_size, candidates, advantages, tau = case
    gradient = gradient_at_theta_old(*case)
    for m in range(M):
        force = sum(advantages[m, i].item() * candidates[m, i].numpy() for i in range(G))
        expected = -(2 / tau[m].item()) * step_size[m].item() * force
        np.testing.assert_allclose(gradient[m].numpy(), expected, atol=1e-6)


def test_force_field_does_not_depend_on_the_softmax_weights(case):
    """Other anchors (x, v) are nearer to other candidates: other weights, the same force."""
    x, v, step_size, candidates, advantages, tau = case
    elsewhere = (normal(8, M, *LATENT), normal(9, M, *LATENT))
    pi, pi_elsewhere = (log_policy(candidates, leap(*a, step_size), tau).exp() for a in ((x, v), elsewhere))
    assert (pi - pi_elsewhere).abs().max() > 0.1
    torch.testing.assert_close(
        gradient_at_theta_old(*elsewhere, step_size, candidates, advantages, tau),
        gradient_at_theta_old(*case),
        atol=1e-5,
        rtol=1e-4,
    )


def test_gradient_away_from_theta_old_is_the_finite_difference_of_the_loss(case):
    x, v, step_size, candidates, advantages, tau = (t.double() for t in case)
    old = log_policy(candidates, leap(x, v, step_size), tau)
    moved = (v + 0.1 * normal(5, M, *LATENT)).requires_grad_()

    def loss(v_theta):
        return clipped_objective(log_policy(candidates, leap(x, v_theta, step_size), tau), old, advantages, CLIP).loss

    loss(moved).sum().backward()
    direction = normal(6, M, *LATENT).double()
    with torch.no_grad():
        slope = (loss(moved + 1e-6 * direction) - loss(moved - 1e-6 * direction)).sum() / 2e-6
    torch.testing.assert_close((moved.grad * direction).sum(), slope, rtol=1e-6, atol=1e-8)


def test_clipped_objective_is_the_equation_written_out():
    log_old = torch.log_softmax(normal(1, 50, G), -1)
    log_new = torch.log_softmax(log_old + 0.5 * normal(2, 50, G), -1)
    advantages = normal(3, 50, G)
    result = clipped_objective(log_new, log_old, advantages, CLIP)
    for m in range(50):
        total, clipped_terms = 0.0, 0
        for i in range(G):
            rho = math.exp(log_new[m, i].item() - log_old[m, i].item())
            a = advantages[m, i].item()
            plain, clipped = a * rho, a * min(max(rho, 1 - CLIP), 1 + CLIP)
            total += min(plain, clipped)
            clipped_terms += clipped < plain
        assert result.loss[m].item() == pytest.approx(-total, abs=1e-5)
        assert result.clip_fraction[m].item() == pytest.approx(clipped_terms / G)
    assert 0.05 < result.clip_fraction.mean() < 0.95  # both branches were met


@pytest.mark.parametrize(
    ("advantage", "rho", "moves"),
    [(1, 1.3, False), (1, 0.7, True), (-1, 1.3, True), (-1, 0.7, False), (1, 1.1, True), (-1, 0.9, True)],
)
def test_a_candidate_that_went_far_enough_its_own_way_has_no_more_pull(advantage, rho, moves):
    """The clip stops what is already favoured by 1 + eps, or avoided by 1 - eps; it never stops the way back."""
    log_new = torch.tensor([[math.log(rho)]], requires_grad=True)
    result = clipped_objective(log_new, torch.zeros(1, 1), torch.tensor([[float(advantage)]]), CLIP)
    result.loss.sum().backward()
    assert log_new.grad.item() == pytest.approx(-advantage * rho if moves else 0)
    assert result.clip_fraction.item() == (0 if moves else 1)


def test_divergences_are_those_of_torchs_distributions():
    log_p, log_q = (torch.log_softmax(normal(s, 20, G), -1) for s in (1, 2))
    expected = torch.distributions.kl_divergence(Categorical(logits=log_p), Categorical(logits=log_q))
    torch.testing.assert_close(kl_divergence(log_p, log_q), expected)
    assert (kl_divergence(log_p, log_q) - kl_divergence(log_q, log_p)).abs().max() > 0.1  # the direction matters
    # kl_old is KL(pi_old || pi_theta): p takes the place of the old policy
    torch.testing.assert_close(clipped_objective(log_q, log_p, normal(3, 20, G), CLIP).kl_old, expected)


def test_diagnostics_carry_no_gradient():
    result = clipped_objective(torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2), torch.ones(1, 2), CLIP)
    assert result.loss.requires_grad
    assert not any(t.requires_grad for t in (result.log_ratio, result.clip_fraction, result.kl_old))


def test_mean_pairwise_distance_is_the_mean_over_all_pairs_of_different_candidates():
    candidates = 3 + normal(1, 2, G, *LATENT)
    for row, found in zip(candidates.numpy(), mean_pairwise_distance(candidates).tolist(), strict=True):
        distances = [((a - b) ** 2).sum() for i, a in enumerate(row) for j, b in enumerate(row) if i != j]
        assert found == pytest.approx(sum(distances) / (G * (G - 1)), rel=1e-5)


def test_temperature_modes():
    candidates = normal(1, 2, G, *LATENT)
    distance = mean_pairwise_distance(candidates)
    torch.testing.assert_close(softmax_temperature(candidates, 0.5, "scale-free"), 0.5 * distance)
    assert softmax_temperature(candidates, 0.5, "element-mean").tolist() == [0.5 * 8] * 2  # 4 x 2 latent elements
    assert softmax_temperature(candidates, 0.5, "raw").tolist() == [0.5] * 2
    with pytest.raises(ValueError, match="scale-free, element-mean, raw, got 'fixed'"):
        softmax_temperature(candidates, 0.5, "fixed")


def test_the_scale_free_policy_is_the_same_at_every_scale(case):
    """Each group has its own temperature: three groups whose spreads differ a hundredfold choose alike."""
    x, v, step_size, candidates, *_ = case
    point = leap(x, v, step_size)
    scale = torch.tensor([0.1, 1.0, 10.0])
    alike, alike_point = candidates[:1].expand(M, -1, -1, -1), point[:1].expand(M, -1, -1)
    scaled, scaled_point = alike * scale.view(M, 1, 1, 1), alike_point * scale.view(M, 1, 1)
    pi = log_policy(scaled, scaled_point, softmax_temperature(scaled, 1.0, "scale-free")).exp()
    torch.testing.assert_close(pi, pi[:1].expand(M, -1), atol=1e-5, rtol=1e-4)


def test_distances_are_root_mean_squared_differences_of_any_two_candidates():
    candidates = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(3))
    candidates[1, 2] = candidates[1, 0] + 1e-4  # a small difference of large numbers is not lost
    candidates[1] += 100
    expected = [
        [[((a.double() - b.double()) ** 2).mean().sqrt().item() for b in group] for a in group] for group in candidates
    ]
    distances = pairwise_distances(candidates)
    assert distances.shape == (2, 3, 3)
    torch.testing.assert_close(distances.double(), torch.tensor(expected).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("apart", [100.0, -100.0])
def test_a_ratio_beyond_float32_is_no_infinity(apart):
    """e^100 overflows: the loss and its gradient stay numbers, and the candidate is clipped as any far outside."""
    log_new = torch.tensor([[apart, 0.0]], requires_grad=True)
    result = clipped_objective(log_new, torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), 0.2)
    result.loss.sum().backward()
    assert result.loss.isfinite().all()
    assert log_new.grad.isfinite().all()
    assert result.log_ratio[0, 0] == apart  # what is reported stays as it is


def test_a_divergence_within_bounds_changes_no_loss_and_one_beyond_ends_it():
    log_old = torch.log_softmax(normal(1, 6, G), -1)
    log_new = torch.log_softmax(log_old + 0.3 * normal(2, 6, G), -1).requires_grad_(True)
    advantages = group_advantages(normal(3, 6, G))[0]
    kl = (log_old.exp() * (log_old - log_new)).sum(-1).detach()
    most = kl.median().item()
    result = trusted_objective(log_new, log_old, advantages, most)
    inside = kl <= most
    expected = -(advantages * (log_new - log_old).exp()).sum(-1)
    torch.testing.assert_close(result.loss, expected * inside)
    torch.testing.assert_close(result.kl_old, kl)
    assert result.clip_fraction.tolist() == [float(not one) for one in inside]
    assert 0 < inside.sum() < 6
    result.loss.sum().backward()
    assert (log_new.grad[~inside] == 0).all()
    assert (log_new.grad[inside].abs().sum(-1) > 0).all()
