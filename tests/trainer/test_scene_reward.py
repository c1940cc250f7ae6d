"""The scene reward: what it counts in pictures whose contents are known, and what cannot fool it."""

import itertools

import pytest
import torch

from trainer.rewards import RewardError, check_prompts
from trainer.rewards.scene import Scene, facts, regions
from trainer.rewards.scene_facts import named
from trainer.tiny.scene_captions import COLOURS, NUMBERS, PLACES, SCENES, Named, caption, read

SIZE, RADIUS = 64, 7
SPACING = 22


def disks(number: int, colour: str, place: str, size: int = SIZE, radius: float = RADIUS) -> torch.Tensor:
    """A row of disks on a pale ground, [3, size, size]."""
    _, (x, y) = PLACES[place]
    along = 1 if place in ("left", "right") else 0
    centres = []
    for i in range(number):
        centre = [x * size, y * size]
        centre[along] += (i - (number - 1) / 2) * SPACING * size / SIZE
        centres.append(tuple(centre))
    return painted([(centre, colour, radius * size / SIZE) for centre in centres], size)


def painted(spots, size: int = SIZE) -> torch.Tensor:
    picture = torch.tensor([0.95, 0.93, 0.97]).view(3, 1, 1).expand(3, size, size).clone()
    ys, xs = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    for (x, y), colour, radius in spots:
        inside = (xs - x).square() + (ys - y).square() <= radius**2
        picture[:, inside] = torch.tensor(COLOURS[colour]).view(3, 1) / 255
    return picture


def said(number: int, colour: str, place: str) -> str:
    return f"{NUMBERS[number - 1]} {colour} things {PLACES[place][0]}"


ALL = list(itertools.product((1, 2, 3), COLOURS, PLACES))


def test_every_scene_is_its_own_caption_and_no_other():
    images = torch.stack([disks(*scene) for scene in ALL])
    for shift in (0, 1, 7, 23):
        others = ALL[shift:] + ALL[:shift]
        right = facts(images, [said(*scene) for scene in others])
        expected = [[a == b for a, b in zip(mine, other, strict=True)] for mine, other in zip(ALL, others, strict=True)]
        assert right.tolist() == expected
        assert Scene().score(images, [said(*s) for s in others]).tolist() == [float(all(row)) for row in expected]


@pytest.mark.parametrize("size", [48, 64, 128])
def test_pictures_of_any_size_are_measured_alike(size):
    images = torch.stack([disks(*scene, size=size) for scene in ALL])
    assert facts(images, [said(*scene) for scene in ALL]).all()


def test_only_what_is_named_is_checked():
    image = disks(2, "red", "left")[None]
    for text in ("two cars", "a red car", "cars on the left", "two red cars", "red cars on the left"):
        assert Scene().score(image, [text]).tolist() == [1]
    for text in ("three cars", "a blue car", "cars on the right", "two blue cars", "red cars at the top"):
        assert Scene().score(image, [text]).tolist() == [0]


@pytest.mark.parametrize(
    "spots",
    [
        [],
        [((16, 32), "red", 3)],  # a speck
        [((16, 16), "red", 12), ((16, 48), "red", 12)],  # heaps
        [((16, 20), "red", 7), ((16, 44), "blue", 7)],  # another colour too
        [((16, 20), "red", 7), ((48, 44), "red", 7)],  # one of them elsewhere
        [((16, 26), "red", 7), ((16, 38), "red", 7)],  # they touch
        [((32, 20), "red", 7), ((32, 44), "red", 7)],  # in the middle
    ],
)
def test_what_is_not_two_red_things_on_the_left_is_not_taken_for_it(spots):
    assert Scene().score(painted(spots)[None], ["two red things on the left"]).tolist() == [0]


def test_specks_and_pale_shades_are_overlooked():
    image = disks(2, "red", "left")
    image[:, 60, 60] = torch.tensor([0.0, 0, 1])
    image[:, :8, 40:] = torch.tensor([0.8, 1, 0.8]).view(3, 1, 1)
    assert Scene().score(image[None], ["two red things on the left"]).tolist() == [1]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_plain_picture_is_no_scene(value):
    assert Scene().score(torch.full((1, 3, SIZE, SIZE), value), ["one red thing on the left"]).tolist() == [0]


def test_a_picture_full_of_colour_is_no_scene():
    image = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    assert Scene().score(image, ["one red thing on the left"]).tolist() == [0]


def test_regions_hold_together_over_corners():
    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[0, 2, 0] = True  # over corners
    mask[0, 5, 3:] = True
    found = regions(mask)
    assert sorted(found.unique(return_counts=True)[1].tolist()) == [3, 3, 30]
    assert (found > 0).equal(mask)


def test_a_winding_region_is_one():
    mask = torch.ones(1, 21, 21, dtype=torch.bool)
    for row in range(1, 21, 2):
        mask[0, row] = False
        mask[0, row, 0 if row % 4 == 1 else -1] = True
    assert len(regions(mask)[mask].unique()) == 1


def test_captions_are_read_as_they_are_made():
    for scene in SCENES:
        assert read(caption(scene)) == Named(scene.number, scene.colour, scene.place)
    assert read("Two RED apples, on the left") == Named(1, 0, 0)
    assert read("a red and a blue apple") == Named(None, None, None)  # two colours


def test_a_prompt_without_facts_is_refused_before_a_run():
    with pytest.raises(RewardError, match=r"'a fox'.*'tiny-scene' checks a number"):
        check_prompts(["tiny-scene"], ["two red apples", "a fox"])
    assert named("three stars").number == 2
