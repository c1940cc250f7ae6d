"""What is scored is pictures: anything else is refused with the value."""

import math

import pytest
import torch

from trainer.rewards import RewardError
from trainer.rewards.base import only_read, score_all, scores_of

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


# ---- pictures are there to be read


def _in_place(images):
    images.mul_(2)


def _through_a_view(images):
    images[0].flatten()[3:5].zero_()


def _by_numpy(images):
    images.numpy()[0, 0, 0, 0] += 0.25


def _past_the_counter(images):
    images.data[0, 0, 0, 0] += 0.25


def _and_fails(images):
    images.zero_()
    raise OSError("the judge is away")


WRITES = (_in_place, _through_a_view, _by_numpy, _past_the_counter, _and_fails)


def written_by(write):
    class Careless:
        def score(self, images, prompts):
            write(images)
            return images.mean((1, 2, 3))

    return Careless()


@pytest.mark.parametrize("write", WRITES)
def test_a_reward_that_writes_into_the_pictures_is_named(write):
    with pytest.raises(RewardError, match="reward 'careless' writes into the pictures that others see too: give it im"):
        score_all({"careless": written_by(write), "late": Brightness()}, GOOD.clone(), ["a"] * 3)


def test_a_write_is_noticed_where_the_numbers_cannot_be_compared():
    """On a device torch's counter is all there is."""
    on_device = torch.empty(1, 3, 4, 4, device="meta")
    with pytest.raises(RewardError, match="'careless' writes into the pictures"), only_read("careless", on_device):
        on_device[0].clamp_(0, 1)


def test_a_write_is_noticed_in_inference_mode_where_torch_does_not_count():
    with torch.inference_mode(), pytest.raises(RewardError, match="'careless' writes into the pictures"):
        scores_of("careless", written_by(_in_place), GOOD.clone(), ["a"] * 3)


def test_a_reward_may_work_on_a_copy():
    class Careful:
        def score(self, images, prompts):
            return images.clone().mul_(2).mean((1, 2, 3))

    scores = score_all({"careful": Careful()}, GOOD.clone(), ["a"] * 3)["careful"]
    torch.testing.assert_close(scores, 2 * GOOD.mean((1, 2, 3)))
