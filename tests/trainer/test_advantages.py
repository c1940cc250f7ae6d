"""Group-relative advantages and their reweighting, against loops and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.engine.grpo import judge
from trainer.settings.config import Config, GrpoSettings, ModelSettings, RewardSettings
from trainer.stages.advantages import (
    flatness,
    group_advantages,
    quasi_norm_reweight,
    relative_spread,
    softly_bounded,
)

# float64 rewards of a group with a visible spread; hypothesis' examples are the same in every run
examples = settings(max_examples=30, deadline=None, derandomize=True, database=None)
groups = st.lists(st.floats(-10, 10), min_size=2, max_size=8).filter(lambda r: max(r) - min(r) > 0.01)


def advantages_by_hand(rewards: list[float]) -> list[float]:
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))  # of the population: / G, not / (G - 1)
    return [(r - mean) / std for r in rewards]


def reweighted_by_hand(advantages: list[float], p: float) -> list[float]:
    norm = sum(abs(a) ** p for a in advantages) ** (1 / p)
    return [a / norm for a in advantages]


def one_winner(group_size: int) -> torch.Tensor:
    return group_advantages(torch.eye(group_size)[:1])[0]


def flat(group_size: int) -> torch.Tensor:
    return group_advantages(torch.tensor([[1.0, -1.0]]).repeat(1, group_size // 2))[0]


@examples
@given(groups, st.sampled_from([0.3, 0.8, 1.0, 2.0]))
def test_advantages_are_the_equation_written_out(rewards, p):
    advantages, informative = group_advantages(torch.tensor([rewards], dtype=torch.float64))
    assert informative.tolist() == [True]
    assert advantages[0].tolist() == pytest.approx(advantages_by_hand(rewards), abs=1e-5)
    reweighted = quasi_norm_reweight(advantages, p)
    assert reweighted[0].tolist() == pytest.approx(reweighted_by_hand(advantages_by_hand(rewards), p), abs=1e-5)
    assert reweighted.sum().item() == pytest.approx(0, abs=1e-6)


@examples
@given(groups, st.floats(-10, 10), st.floats(0.1, 100))
def test_adding_a_constant_or_scaling_by_a_positive_number_changes_nothing(rewards, constant, scale):
    r = torch.tensor([rewards], dtype=torch.float64)
    torch.testing.assert_close(group_advantages(scale * r + constant)[0], group_advantages(r)[0], atol=1e-5, rtol=1e-5)


@examples
@given(groups, st.randoms(use_true_random=False))
def test_permuting_the_candidates_permutes_their_advantages(rewards, random):
    order = random.sample(range(len(rewards)), len(rewards))
    r = torch.tensor([rewards], dtype=torch.float64)
    for p in (0.8, 2.0):
        reweighted = quasi_norm_reweight(group_advantages(r)[0], p)
        permuted = quasi_norm_reweight(group_advantages(r[:, order])[0], p)
        torch.testing.assert_close(permuted, reweighted[:, order], atol=1e-6, rtol=1e-5)


def test_groups_do_not_see_each_other():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [100.0, 50.0, 0.0]])
    advantages = group_advantages(rewards)[0]
    for row, alone in zip(advantages, rewards.tolist(), strict=True):
        assert row.tolist() == pytest.approx(advantages_by_hand(alone), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, -3.0, 0.2718, 1e6])
def test_equal_rewards_give_zero_advantage_not_nan(value):
    advantages, informative = group_advantages(torch.full((1, 4), value))
    assert advantages.tolist() == [[0, 0, 0, 0]]
    assert informative.tolist() == [False]
    assert quasi_norm_reweight(advantages, 0.8).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_silences_its_own_group_only(bad):
    rewards = torch.tensor([[1.0, bad, 2.0], [1.0, 2.0, 4.0]])
    advantages, informative = group_advantages(rewards)
    assert informative.tolist() == [False, True]
    assert advantages[0].tolist() == [0, 0, 0]
    assert advantages[1].tolist() == pytest.approx(advantages_by_hand([1, 2, 4]), abs=1e-6)
    assert quasi_norm_reweight(advantages, 0.8).isfinite().all()


def test_differences_at_the_rounding_of_a_float32_model_are_no_information():
    noise = torch.tensor([[25.0, 25.000002, 25.0, 25.0]])
    assert noise.unique().numel() == 2
    advantages, informative = group_advantages(noise)
    assert advantages.tolist() == [[0, 0, 0, 0]]
    assert informative.tolist() == [False]
    assert group_advantages(torch.tensor([[25.0, 25.001, 25.0, 25.0]]))[1].item()


def test_a_small_spread_on_a_large_mean_keeps_its_digits():
    """In float32 the mean alone would be off by half of the last digit, here 3 % of the standard deviation."""
    rewards = [1000 + ulps * 2**-14 for ulps in (0, 23, 5, 1)]  # exact in float32
    advantages = group_advantages(torch.tensor([rewards]))[0][0]
    assert advantages.tolist() == pytest.approx(advantages_by_hand(rewards), abs=1e-6)


def test_p_two_is_plain_grpo_divided_by_the_root_of_the_group_size():
    advantages = group_advantages(torch.randn(3, 12, generator=torch.Generator().manual_seed(0)))[0]
    torch.testing.assert_close(quasi_norm_reweight(advantages, 2.0), advantages / math.sqrt(12))


@pytest.mark.parametrize("p", [0.5, 0.8, 1.5])
@pytest.mark.parametrize("group_size", [4, 12])
def test_below_two_a_flat_group_counts_less_than_one_with_a_winner(p, group_size):
    """Closed forms: |A'| = G^(1/2 - 1/p) if flat; a winner has A = sqrt(G - 1) against G - 1 times -1 / sqrt(G - 1)."""
    g = group_size
    norm_flat = quasi_norm_reweight(flat(g), p).norm().item()
    norm_winner = quasi_norm_reweight(one_winner(g), p).norm().item()
    assert norm_flat == pytest.approx(g ** (0.5 - 1 / p), rel=1e-5)
    quasi_norm = ((g - 1) ** (p / 2) + (g - 1) * (g - 1) ** (-p / 2)) ** (1 / p)
    assert norm_winner == pytest.approx(math.sqrt(g) / quasi_norm, rel=1e-5)
    assert norm_flat < 0.95 * norm_winner
    assert quasi_norm_reweight(flat(g), 2.0).norm().item() == pytest.approx(1)
    assert quasi_norm_reweight(one_winner(g), 2.0).norm().item() == pytest.approx(1)


@pytest.mark.parametrize("p", [0.0, -0.8, 2.1, math.nan])
def test_a_quasi_norm_out_of_range_is_refused_with_its_value(p):
    with pytest.raises(ValueError, match=f"p must be above 0 and at most 2, got {p}"):
        quasi_norm_reweight(flat(4), p)


def test_flatness_tells_a_flat_group_from_one_against_one():
    one_against_one = torch.tensor([[1.0, -1.0, 0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(flatness(flat(8)), torch.tensor([1.0]))
    torch.testing.assert_close(flatness(one_against_one), torch.tensor([2 / 8]))
    assert flatness(torch.zeros(1, 8)).isnan().all()


def test_a_soft_bound_leaves_small_advantages_and_reaches_no_further():
    a = torch.linspace(-50, 50, 1001)[None]
    found = softly_bounded(a, 2.0)
    assert found.abs().max() <= 2
    torch.testing.assert_close(found, -found.flip(1))
    assert (found.diff() >= 0).all()
    torch.testing.assert_close(softly_bounded(torch.tensor([[1e-3]]), 2.0), torch.tensor([[1e-3]]), rtol=1e-5, atol=0)


def test_a_groups_spread_counts_relative_to_the_others():
    torch.testing.assert_close(relative_spread(torch.tensor([1.0, 3, 0])), torch.tensor([0.5, 1.5, 0]))
    assert relative_spread(torch.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("spread", "expected"), [("group", 1.0), ("batch", 3.0)])
def test_of_a_batchs_spread_a_group_that_differs_more_counts_more(spread, expected):
    config = grpo_config(spread=spread)
    scores = torch.tensor([[0.0, 1, 2, 5], [0, 3, 6, 15]])
    first, second = judge(config, None, {"colourfulness": scores}).advantages
    torch.testing.assert_close(second, expected * first)


def test_a_bound_comes_before_the_quasi_norm():
    scores = torch.tensor([[0.0] * 11 + [1.0]])
    free, bounded = (
        judge(grpo_config(advantage_bound=b), None, {"colourfulness": scores}).advantages for b in (0.0, 1.0)
    )
    winner, others = bounded[0, -1] / free[0, -1], bounded[0, 0] / free[0, 0]
    assert winner < others
    assert bounded.abs().pow(0.8).sum().item() == pytest.approx(1, rel=1e-5)


def grpo_config(**grpo) -> Config:
    return Config(ModelSettings("none"), ("a",), (RewardSettings("colourfulness"),), grpo=GrpoSettings(**grpo))
