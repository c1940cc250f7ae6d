"""Gradients of the pairs, with a linear velocity as the policy.

v_theta(x, sigma, row) = W x + sigma * b[row]: its gradients are closed forms, and theta_old is the rollout's own.
"""

import itertools
import math

import pytest
import torch
from leaping import accumulate_gradient
from torch import nn

from trainer.choices import CROSSED
from trainer.stages.advantages import group_advantages, quasi_norm_reweight
from trainer.stages.anchors import Pairs, choose_pairs
from trainer.stages.rollout import Trajectories, rollout
from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS
from trainer.stages.surrogate import softmax_temperature
from trainer.stages.update import GradientHistory, step_optimizer

P, G, D, T = 2, 4, 3, 5  # prompts, candidates, latent elements, solver steps
KEEP = (0, 2, 3)
K = len(KEEP)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(D, D, generator=torch.Generator().manual_seed(0)))
        self.bias = nn.Parameter(0.3 * torch.randn(P, D, generator=torch.Generator().manual_seed(1)))

    def forward(self, x, sigma, rows):
        return x @ self.weight.T + sigma[:, None] * self.bias[rows]


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
def case(policy):
    """Trajectories of a high-order solver, advantages A', and temperatures [K, P]."""
    noise = torch.randn(P * G, D, generator=torch.Generator().manual_seed(2))
    kept = rollout(policy, noise, torch.arange(P).repeat_interleave(G), sigma_grid(T, 3.0), SOLVERS["dpm++2m"], KEEP)
    rewards = torch.randn(P, G, generator=torch.Generator().manual_seed(3))
    tau = torch.stack([softmax_temperature(x, 1.0, "scale-free") for x in kept.x_next.unflatten(1, (P, G))])
    return kept, quasi_norm_reweight(group_advantages(rewards)[0], 0.8), tau


def pairs_of(triples) -> Pairs:
    return Pairs(*(torch.tensor(column) for column in zip(*triples, strict=True)))


ALL = list(itertools.product(range(P), range(G), range(K)))  # (prompt, anchor, step)


def gradient(policy: nn.Module, case, pairs: Pairs, **options) -> tuple[list[torch.Tensor], object]:
    options = {"clip": 0.2, "micro_batch": 5, "normaliser": len(pairs), **options}
    policy.zero_grad(set_to_none=True)
    metrics = accumulate_gradient(policy, *case[:1], pairs, *case[1:], **options)
    return [p.grad for p in policy.parameters()], metrics


def assert_same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **{"atol": 1e-6, "rtol": 1e-4, **tolerance})


def moved(policy: Policy, by: float = 0.2) -> Policy:
    with torch.no_grad():
        for p in policy.parameters():
            p += by * torch.randn(p.shape, generator=torch.Generator().manual_seed(9))
    return policy


def test_ratio_is_exactly_one_at_the_policy_that_made_the_trajectories(policy, case):
    """Although the rollout's steps are of second order: the old policy takes the same first-order leap."""
    metrics = gradient(policy, case, pairs_of(ALL))[1]
    assert metrics.ratio_error == 0
    assert metrics.velocity_error == 0
    assert metrics.kl_old == 0
    assert metrics.clip_fraction == 0
    assert metrics.loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient(moved(policy), case, pairs_of(ALL))[1].ratio_error > 0.01


def test_the_velocity_error_is_the_largest_relative_one_of_the_pairs(policy, case):
    kept, expected = case[0], []
    moved(policy)
    for prompt, anchor, k in ALL:
        row = prompt * G + anchor
        v = policy(kept.x[k, row : row + 1], kept.sigma[k : k + 1], torch.tensor([prompt]))[0]
        v_old = kept.v[k, row]
        expected.append(((v - v_old).square().sum() / v_old.square().sum()).sqrt().item())
    found = gradient(policy, case, pairs_of(ALL), micro_batch=4)[1].velocity_error.item()
    assert found == pytest.approx(max(expected), rel=1e-5)


def test_a_scale_in_front_of_the_loss_scales_the_gradient_alone(policy, case):
    moved(policy)
    plain, metrics = gradient(policy, case, pairs_of(ALL))
    plain = [g.clone() for g in plain]
    scaled, other = gradient(policy, case, pairs_of(ALL), loss_scale=1024.0)
    assert all(torch.equal(a, 1024 * b) for a, b in zip(scaled, plain, strict=True))
    assert other == metrics


def test_gradient_is_the_joint_force_field_through_the_linear_policy(policy, case):
    """dL / dv = -(2 / tau) (s_{j+1} - s_j) sum_i A'_i x_{j+1}^(i); dv / dW = x, dv / db = sigma."""
    kept, advantages, tau = case
    triples = [(0, 1, 0), (0, 3, 2), (1, 0, 1), (1, 2, 2)]
    weight, bias = torch.zeros(D, D), torch.zeros(P, D)
    for prompt, anchor, k in triples:
        row = prompt * G + anchor
        force = sum(advantages[prompt, i] * kept.x_next[k, prompt * G + i] for i in range(G))
        dv = -2 / tau[k, prompt] * kept.step_size[k] * force / len(triples)
        weight += dv[:, None] * kept.x[k, row]
        bias[prompt] += kept.sigma[k] * dv
    assert_same(gradient(policy, case, pairs_of(triples))[0], [weight, bias])


def test_one_update_moves_the_leap_toward_good_candidates_and_away_from_bad_ones(policy, case):
    kept, _, tau = case
    advantages = torch.tensor([[0.0, 0.5, 0.0, -0.5], [0.5, 0.0, -0.5, 0.0]])
    row = torch.tensor([0, G])  # the anchors: candidate 0 of both prompts, at the kept step 1
    pairs = pairs_of([(0, 0, 1), (1, 0, 1)])

    def leap_of_the_policy():
        v = policy(kept.x[1, row], kept.sigma[1].expand(2), torch.arange(P))
        return (kept.x[1, row] + kept.step_size[1] * v).detach()

    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    before = leap_of_the_policy()
    accumulate_gradient(policy, kept, pairs, advantages, tau, clip=0.2, micro_batch=4, normaliser=2)
    assert step_optimizer(optimizer, GradientHistory(exponent=0), max_ratio=4.0, lr=1e-3)[1]
    after = leap_of_the_policy()
    for prompt, good, bad in ((0, 1, 3), (1, 0, 2)):
        x_good, x_bad = (kept.x_next[1, prompt * G + i] for i in (good, bad))
        shift = after[prompt] - before[prompt]
        assert shift @ (x_good - x_bad) > 0
        nearer = [(x - before[prompt]).square().sum() - (x - after[prompt]).square().sum() for x in (x_good, x_bad)]
        assert nearer[0] > nearer[1]


def test_expectation_over_all_anchor_and_step_draws_is_the_full_average(policy, case):
    """B = 2 of G = 4 and 2 of K = 3 steps: every draw is equally likely, each divided by what it drew."""
    moved(policy)  # also where the ratio is not 1
    full = gradient(policy, case, pairs_of(ALL))
    draws = []
    for anchors in itertools.product(itertools.combinations(range(G), 2), repeat=P):
        for steps in itertools.combinations(range(K), 2):
            drawn = [(p, a, k) for k in steps for p in range(P) for a in anchors[p]]
            draws.append(gradient(policy, case, pairs_of(drawn)))
    assert len(draws) == 6**P * 3
    for mean, expected in zip(zip(*(grads for grads, _ in draws), strict=True), full[0], strict=True):
        torch.testing.assert_close(torch.stack(mean).mean(0), expected, atol=1e-6, rtol=1e-4)
    assert sum(m.loss.item() for _, m in draws) / len(draws) == pytest.approx(full[1].loss.item(), abs=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 3, 24])
def test_micro_batches_change_nothing(policy, case, micro_batch):
    moved(policy)
    pairs = choose_pairs(P, G, G, K, pairing=CROSSED, generator=torch.Generator().manual_seed(0))
    expected, metrics = gradient(policy, case, pairs, micro_batch=8)
    found, other = gradient(policy, case, pairs, micro_batch=micro_batch)
    assert_same(found, expected)
    for name in ("loss", "clip_fraction", "kl_old", "ratio_error", "velocity_error"):
        torch.testing.assert_close(getattr(other, name), getattr(metrics, name), atol=1e-6, rtol=1e-5)


def test_leaving_out_a_group_without_advantages_changes_nothing_but_the_cost(policy, case):
    """Its pairs count in the normaliser: the other groups must not be trained harder because of it."""
    kept, advantages, tau = case
    silent = (kept, advantages * torch.tensor([[1.0], [0.0]]), tau)
    full = gradient(policy, silent, pairs_of(ALL), normaliser=len(ALL))[0]
    kept_pairs = pairs_of(ALL).only(torch.tensor([True, False]))
    assert_same(gradient(policy, silent, kept_pairs, normaliser=len(ALL))[0], full)


def objective_by_hand(policy, case, clip: float, reference=None, kl_weight: float = 0.0) -> list[float]:
    """Mean loss, clipped share, KL(old || new), KL(new || reference) and the largest |rho - 1| over ALL pairs."""
    kept, advantages, tau = case
    loss = clipped = kl_old = kl_reference = error = 0.0
    for prompt, anchor, k in ALL:
        row, h = prompt * G + anchor, kept.step_size[k]
        ask = (kept.x[k, row][None], kept.sigma[k][None], torch.tensor([prompt]))
        candidates = kept.x_next[k, prompt * G : (prompt + 1) * G]

        def probabilities(v, x=kept.x[k, row], h=h, candidates=candidates, t=tau[k, prompt]):
            weights = [math.exp(-((c - x - h * v) ** 2).sum() / t) for c in candidates.detach()]
            return [w / sum(weights) for w in weights]

        with torch.no_grad():
            new, old = probabilities(policy(*ask)[0]), probabilities(kept.v[k, row])
            base = probabilities(reference(*ask)[0]) if reference else new
        for a, n, o, b in zip(advantages[prompt].tolist(), new, old, base, strict=True):
            rho = n / o
            bounded = min(max(rho, 1 - clip), 1 + clip)
            loss -= min(a * rho, a * bounded)
            clipped += (a * bounded < a * rho) / G
            kl_old += o * math.log(o / n)
            kl_reference += n * math.log(n / b)
            error = max(error, abs(rho - 1))
    means = [v / len(ALL) for v in (loss + kl_weight * kl_reference, clipped, kl_old, kl_reference)]
    return [*means, error]


def test_metrics_are_the_means_over_the_pairs(policy, case):
    reference = moved(Policy(), 0.5)
    moved(policy)
    kept, advantages, tau = case
    case = (kept, advantages, tau / 10)  # sharp enough to tell a divergence from its reverse
    expected = objective_by_hand(policy, case, 0.1, reference, 0.7)
    assert expected[1] > 0  # something was clipped
    for pairs in (ALL, ALL[::-1]):  # the largest ratio is not always in the last micro-batch
        metrics = gradient(policy, case, pairs_of(pairs), clip=0.1, reference=reference, kl_weight=0.7)[1]
        found = [metrics.loss, metrics.clip_fraction, metrics.kl_old, metrics.kl_reference, metrics.ratio_error]
        assert [v.item() for v in found] == pytest.approx(expected, abs=1e-5, rel=1e-4)


def test_the_loss_counts_left_out_pairs_and_the_other_metrics_do_not(policy, case):
    moved(policy)
    metrics = gradient(policy, case, pairs_of(ALL))[1]
    diluted = gradient(policy, case, pairs_of(ALL), normaliser=4 * len(ALL))[1]
    assert diluted.loss.item() == pytest.approx(metrics.loss.item() / 4)
    assert diluted.kl_old.item() == pytest.approx(metrics.kl_old.item())
    assert diluted.clip_fraction.item() == pytest.approx(metrics.clip_fraction.item())


def test_kl_to_the_reference_pulls_the_policy_toward_it(policy, case):
    kept, advantages, tau = case
    silent, reference = (kept, torch.zeros_like(advantages), tau), moved(Policy(), 0.5)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    divergences = []
    for _ in range(3):
        grads, metrics = gradient(policy, silent, pairs_of(ALL), reference=reference, kl_weight=1.0)
        divergences.append(metrics.kl_reference.item())
        assert any(g.abs().max() > 0 for g in grads)
        step_optimizer(optimizer, GradientHistory(exponent=0), max_ratio=4.0, lr=0.1)
    assert divergences[0] > divergences[1] > divergences[2] > 0
    assert all(p.grad is None for p in reference.parameters())


def test_reference_is_not_asked_without_a_weight(policy, case):
    def reference(*_):
        raise AssertionError("the reference was evaluated")

    assert gradient(policy, case, pairs_of(ALL), reference=reference, kl_weight=0.0)[1].kl_reference == 0


def test_no_pairs_add_no_gradient(policy, case):
    grads, metrics = gradient(policy, case, pairs_of(ALL).only(torch.zeros(P, dtype=torch.bool)), normaliser=8)
    assert grads == [None, None]
    assert metrics.loss == 0


def test_rows_of_several_prompts_meet_their_own_candidates(policy, case):
    """Swapping the two prompts everywhere swaps the gradient of their biases and nothing else."""
    kept, advantages, tau = case

    def swap(x: torch.Tensor, dim: int) -> torch.Tensor:
        return x.unflatten(dim, (P, G)).flip(dim).flatten(dim, dim + 1)

    swapped = Trajectories(
        swap(kept.x_0, 0), kept.steps, kept.sigma, kept.step_size, *(swap(t, 1) for t in (kept.x, kept.v, kept.x_next))
    )
    weight, bias = gradient(policy, case, pairs_of(ALL))[0]
    with torch.no_grad():
        policy.bias.copy_(policy.bias.flip(0))
    found = gradient(policy, (swapped, advantages.flip(0), tau.flip(1)), pairs_of(ALL))[0]
    assert_same(found, [weight, bias.flip(0)])
