"""What is scored is pictures: anything else is refused with the value."""

import math

import pytest
import torch

from trainer.rewards import RewardError
from trainer.rewards.base import score_all

GOOD = torch.rand(3, 3, 6, 4, generator=torch.Generator().manual_seed(0))


class Brightness:
    def score(self, images, prompts):
        return images.mean((1, 2, 3)).double()


def with_pixel(value: float) -> torch.Tensor:
    images = GOOD.clone()
    images[1, 2, 3, 1] = value
    return images


REFUSED = {
    "rank": (GOOD[0], r"shape \[3, 6, 4\] .*must be \[N, 3, height, width\]"),
    "channels": (torch.zeros(3, 4, 6, 4), r"shape \[3, 4, 6, 4\]"),
    "channels last": (GOOD.movedim(1, -1), r"shape \[3, 6, 4, 3\]"),
    "none": (GOOD[:0], r"shape \[0, 3, 6, 4\]"),
    "bytes": (torch.zeros(3, 3, 6, 4, dtype=torch.uint8), "type torch.uint8 .*floating point, from 0 to 1"),
    "NaN": (with_pixel(math.nan), "picture 1 has a pixel of nan"),
    "infinite": (with_pixel(-math.inf), "picture 1 has a pixel of -inf"),
    "too bright": (with_pixel(1.01), "to 1.01 cannot be scored: must be from 0 to 1"),
    "too dark": (with_pixel(-0.5), "from -0.5 to .* must be from 0 to 1"),
    "of 255": (GOOD * 255, "must be from 0 to 1"),
    "prompts": (GOOD[:2], "2 pictures but 3 prompts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_batch_of_pictures_is_refused_with_the_value(case):
    images, message = REFUSED[case]
    with pytest.raises(RewardError, match=message) as caught:
        score_all({"brightness": Brightness()}, images, ["a", "b", "c"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-0.0009, 1.0009])
def test_rounding_just_outside_the_range_is_let_through(value):
    assert score_all({"brightness": Brightness()}, with_pixel(value), ["a"] * 3)["brightness"].isfinite().all()


def test_every_reward_is_asked_and_answers_in_float32():
    scores = score_all({"first": Brightness(), "second": Brightness()}, GOOD, ["a"] * 3)
    assert list(scores) == ["first", "second"]
    assert scores["second"].dtype == torch.float32
    assert scores["second"].tolist() == pytest.approx([image.mean().item() for image in GOOD])


def test_a_reward_that_gives_no_score_for_each_picture_is_named():
    class Lazy:
        def score(self, images, prompts):
            return images.mean()[None]

    with pytest.raises(RewardError, match=r"reward 'lazy' gave scores of shape \[1\], must be \[3\]"):
        score_all({"lazy": Lazy()}, GOOD, ["a"] * 3)


def test_a_score_that_is_no_number_is_the_business_of_the_training():
    class Undecided:
        def score(self, images, prompts):
            return torch.full((len(images),), math.nan)

    assert score_all({"undecided": Undecided()}, GOOD, ["a"] * 3)["undecided"].isnan().all()
