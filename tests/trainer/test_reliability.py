"""A reward's own noise: measured by scoring again, and what follows from it."""

import math

import pytest
import torch

from trainer.engine.grpo import judge, reliable
from trainer.experiments.noisy import Noisy, mirrored
from trainer.settings.config import Config, GrpoSettings, ModelSettings, RewardSettings
from trainer.stages.reliability import shifted, signal_share

P, G = 400, 12


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_the_share_is_that_of_the_pictures_in_the_variance_of_the_mean(n, noise):
    repeats = normal(1, P, G) + noise * normal(2, n, P, G) + 100 * normal(3, P, 1)
    assert signal_share(repeats).item() == pytest.approx(1 / (1 + noise**2 / n), abs=0.03)


def test_noise_alone_has_hardly_any_share():
    assert signal_share(normal(1, 2, P, G)).item() < 0.06


def test_scores_that_are_all_alike_have_none_and_bad_numbers_do_not_count():
    assert signal_share(torch.ones(2, 3, G)).item() == 0
    repeats = normal(1, P, G).expand(2, P, G).clone()
    repeats[0, 0, 0] = math.nan
    assert signal_share(repeats).item() == pytest.approx(1)
    assert signal_share(torch.full((2, 1, G), math.nan)).item() == 0


def config(**weights: float) -> Config:
    rewards = tuple(RewardSettings("colourfulness", name=name, weight=w) for name, w in weights.items())
    return Config(ModelSettings("none"), ("a",), rewards, grpo=GrpoSettings(scorings=2))


def test_one_scoring_is_taken_as_it_is():
    scores = {"a": normal(1, P, G)}
    assert reliable(config(a=1.0), [scores]) == (scores, None)
    assert judge(config(a=1.0), None, scores).signal == 1


def test_a_noisy_reward_counts_less_beside_another_and_shortens_the_update():
    a, noise = normal(1, P, G), normal(2, 2, P, G)
    scores, shares = reliable(config(a=1.0, b=1.0), [{"a": a, "b": noise[i]} for i in range(2)])
    torch.testing.assert_close(scores["b"], noise.mean(0))
    group = judge(config(a=1.0, b=1.0), None, scores, shares)
    assert shares["a"] == pytest.approx(1)
    assert group.signal == pytest.approx((1 + shares["b"]) / 2)
    alone = judge(config(a=1.0), None, {"a": a}).advantages
    assert torch.cosine_similarity(group.advantages.flatten(), alone.flatten(), 0) > 0.99


def test_a_reward_that_is_noise_alone_leaves_nothing_to_learn():
    group = judge(config(a=-1.0), None, {"a": normal(1, P, G)}, {"a": 0.0})
    assert not group.combined.informative.any()
    assert group.signal == 0


def test_a_shifted_picture_is_the_same_but_for_a_pixel():
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(shifted(image, 0), image)
    moved = [shifted(image, time) for time in range(1, 5)]
    assert torch.equal(moved[0][..., :-1], image[..., 1:])
    assert torch.equal(moved[1][..., 1:], image[..., :-1])
    assert torch.equal(moved[2][..., :-1, :], image[..., 1:, :])
    assert torch.equal(moved[3][..., 1:, :], image[..., :-1, :])
    assert all(m.shape == image.shape for m in moved)


class Known:
    def __init__(self, scores: torch.Tensor):
        self.scores = scores

    def score(self, images, prompts):
        return self.scores.flatten()


def disturbed(kind: str, amount: float, scores: torch.Tensor) -> torch.Tensor:
    return Noisy(Known(scores), kind, amount, G).score(None, []).view_as(scores)


def test_mirrored_scores_put_the_best_in_place_of_the_worst():
    assert mirrored(torch.tensor([[3.0, 1, 2], [0, 5, 9]])).tolist() == [[1, 3, 2], [9, 5, 0]]


@pytest.mark.parametrize(("amount", "expected"), [(0.0, 1.0), (0.3, 0.4), (0.5, 0.0), (1.0, -1.0)])
def test_flipped_ranks_leave_what_is_not_flipped(amount, expected):
    scores = normal(1, P, G).argsort(1).float()  # ranks
    found = disturbed("flipped", amount, scores)
    correlation = torch.corrcoef(torch.stack([scores.flatten(), found.flatten()]))[0, 1].item()
    assert correlation == pytest.approx(expected, abs=0.04)


def test_gaussian_noise_is_measured_in_a_groups_spread():
    scores = normal(1, P, G) * 100
    away = disturbed("gaussian", 0.5, scores) - scores
    assert (away.std() / scores.std(1, correction=0).square().mean().sqrt()).item() == pytest.approx(0.5, abs=0.02)


def test_pure_noise_knows_nothing_of_the_pictures():
    scores = normal(1, P, G)
    found = disturbed("pure", 1.0, scores)
    assert abs(torch.corrcoef(torch.stack([scores.flatten(), found.flatten()]))[0, 1].item()) < 0.05
