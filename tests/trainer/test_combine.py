"""Several rewards in one advantage: normalised by hand, held-out ones unseen, bad numbers contained."""

import math

import numpy as np
import pytest
import torch

from trainer.stages.combine import combine

P, G = 2, 6


def scores_of(seed: int, scale: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    return offset + scale * torch.randn(P, G, generator=torch.Generator().manual_seed(seed))


def normalised(scores: torch.Tensor) -> np.ndarray:
    rows = scores.double().numpy()
    return np.stack([(row - row.mean()) / row.std() for row in rows])  # numpy's std is the population's


@pytest.fixture
def scores() -> dict[str, torch.Tensor]:
    """One reward's spread is a hundred times the other's."""
    return {"small": scores_of(1, 0.02, 0.3), "large": scores_of(2, 2.0, 20.0)}


WEIGHTS = {"small": 1.0, "large": 0.5}


def test_each_reward_is_normalised_before_the_weighted_sum(scores):
    total = 1.0 * normalised(scores["small"]) + 0.5 * normalised(scores["large"])
    combined = combine(scores, WEIGHTS, "advantage")
    np.testing.assert_allclose(combined.advantages.numpy(), normalised(torch.from_numpy(total)), atol=1e-5)
    assert combined.informative.tolist() == [True, True]


def test_raw_adds_the_scores_as_they_are(scores):
    expected = normalised(scores["small"].double() + 0.5 * scores["large"].double())
    np.testing.assert_allclose(combine(scores, WEIGHTS, "raw").advantages.numpy(), expected, atol=1e-5)


def test_the_scale_of_a_reward_counts_in_raw_only(scores):
    scaled = {**scores, "small": 1000 * scores["small"]}
    for normalisation, alike in (("advantage", True), ("raw", False)):
        before, after = (combine(s, WEIGHTS, normalisation).advantages for s in (scores, scaled))
        assert torch.allclose(before, after, atol=1e-5) == alike


@pytest.mark.parametrize("normalisation", ["advantage", "raw"])
def test_a_negative_weight_asks_for_less(scores, normalisation):
    for_more, for_less = (combine(scores, {"small": w}, normalisation).advantages for w in (1.0, -1.0))
    torch.testing.assert_close(for_less, -for_more)
    np.testing.assert_allclose(for_more.numpy(), normalised(scores["small"]), atol=1e-5)


@pytest.mark.parametrize("normalisation", ["advantage", "raw"])
@pytest.mark.parametrize("value", [7.0, math.nan])
def test_a_held_out_reward_enters_nothing_not_even_with_a_nan(scores, normalisation, value):
    alone = combine(scores, WEIGHTS, normalisation)
    held_out = {"watch": value * scores_of(9), **scores}
    watched = combine(held_out, WEIGHTS, normalisation)
    assert torch.equal(watched.advantages, alone.advantages)
    assert torch.equal(watched.informative, alone.informative)


@pytest.mark.parametrize("normalisation", ["advantage", "raw"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["small", "large"])
def test_a_bad_number_in_one_trained_reward_silences_its_group_and_no_other(scores, normalisation, bad, name):
    clean = combine(scores, WEIGHTS, normalisation)
    scores[name][0, 3] = bad
    combined = combine(scores, WEIGHTS, normalisation)
    assert combined.informative.tolist() == [False, True]
    assert combined.advantages[0].tolist() == [0] * G
    torch.testing.assert_close(combined.advantages[1], clean.advantages[1])


@pytest.mark.parametrize("normalisation", ["advantage", "raw"])
def test_a_reward_that_cannot_tell_a_group_apart_leaves_the_choice_to_the_other(scores, normalisation):
    scores["large"][0] = 20.0
    combined = combine(scores, WEIGHTS, normalisation)
    assert combined.informative.tolist() == [True, True]
    np.testing.assert_allclose(combined.advantages[0].numpy(), normalised(scores["small"])[0], atol=1e-4)


@pytest.mark.parametrize("normalisation", ["advantage", "raw"])
def test_equal_scores_of_every_reward_are_no_information(normalisation):
    flat = {"small": torch.full((P, G), 0.3), "large": torch.full((P, G), 20.0)}
    combined = combine(flat, WEIGHTS, normalisation)
    assert combined.informative.tolist() == [False, False]
    assert combined.advantages.tolist() == [[0] * G] * P


@pytest.mark.parametrize("normalisation", ["advantage", "raw"])
def test_rewards_that_cancel_leave_no_advantage(normalisation):
    """What remains of r - r is rounding; normalised, it would be noise as loud as a real reward."""
    r = scores_of(1)
    opposite = {"r": r, "not r": (3 - r) if normalisation == "raw" else (3 - 2 * r)}
    combined = combine(opposite, {"r": 1.0, "not r": 1.0}, normalisation)
    assert combined.informative.tolist() == [False, False]
    assert combined.advantages.tolist() == [[0] * G] * P


@pytest.mark.parametrize("normalisation", ["advantage", "raw"])
def test_a_score_beyond_its_bounds_counts_as_the_bound(scores, normalisation):
    bounded = {**scores, "large": scores["large"].clamp(19.5, 20.5)}
    expected = combine(bounded, WEIGHTS, normalisation)
    clipped = combine(scores, WEIGHTS, normalisation, {"large": (19.5, 20.5)})
    assert not torch.equal(bounded["large"], scores["large"])
    assert torch.equal(clipped.advantages, expected.advantages)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bounds_do_not_turn_a_bad_number_into_a_score(scores, bad):
    scores["large"][0, 3] = bad
    combined = combine(scores, WEIGHTS, "advantage", {"large": (19.5, 20.5)})
    assert combined.informative.tolist() == [False, True]


def test_a_group_all_beyond_its_bounds_has_nothing_left_to_gain(scores):
    combined = combine(scores, {"large": 1.0}, "raw", {"large": (0.0, 1.0)})
    assert combined.informative.tolist() == [False, False]


def test_an_unknown_normalisation_is_refused_with_the_choices(scores):
    with pytest.raises(ValueError, match="one of advantage, raw, got 'zscore'"):
        combine(scores, WEIGHTS, "zscore")


def test_the_spread_is_that_of_the_sums_and_0_if_there_is_nothing_to_learn():
    scores = {"a": torch.tensor([[0.0, 1, 2, 3], [5, 5, 5, 5], [0, 2, 4, 6], [0, 1, 2, math.nan]])}
    found = combine(scores, {"a": -2.0}, "raw").spread
    expected = torch.tensor([math.sqrt(1.25) * 2, 0, math.sqrt(1.25) * 4, 0])
    torch.testing.assert_close(found, expected)


def test_the_spread_of_normalised_rewards_is_in_units_of_each_over_all_groups():
    """The second reward's scale does not count; a group with a bad number sets no unit."""
    a = torch.tensor([[0.0, 2, 0, 2], [0, 6, 0, 6], [0, 9, 0, math.inf]])
    b = 1000 * torch.tensor([[0.0, 0, 1, 1], [0, 0, 3, 3], [0, 0, 1, 1]])
    found = combine({"a": a, "b": b}, {"a": 1.0, "b": 1.0}, "advantage").spread
    torch.testing.assert_close(found, torch.tensor([math.sqrt(0.5), math.sqrt(4.5), 0]))
