"""Contact sheets and curves: what is where, told by pixels."""

import numpy as np
import pytest
import torch

from trainer.picture_files import PictureError
from trainer.pictures import sheets
from trainer.pictures.convert import channels_first, zero_to_one
from trainer.pictures.plot import BOTTOM, LEFT, RIGHT, SMOOTH, TOP, curves, moving_average
from trainer.pictures.sheets import GAP, LINE, MARK, PAPER, WRONG, contact_sheet, image_tensor, side_by_side


def sheet(anchors, columns=2, edge=40, scores=1):
    prompts, group_size = anchors.shape
    images = torch.linspace(0, 0.5, prompts * group_size).view(-1, 1, 1, 1).expand(-1, 3, 20, 10)
    table = {f"reward {n}": torch.rand(prompts, group_size) for n in range(scores)}
    advantages = torch.randn(prompts, group_size)
    return contact_sheet(images, ["a very long prompt " * 9] * prompts, table, advantages, anchors, columns, edge)


def test_candidates_lie_in_their_order_prompt_by_prompt_and_anchors_are_framed():
    anchors = torch.tensor([[True, False, False], [False, False, True]])
    picture = np.asarray(sheet(anchors))
    width, height = 20, 40  # 10 x 20 pixels, longest edge 40
    cell = (width + GAP, height + GAP + 2 * LINE)
    block = LINE + GAP + 2 * cell[1]
    for p in range(2):
        for i in range(3):
            x, y = GAP + (i % 2) * cell[0], p * block + LINE + GAP + (i // 2) * cell[1]
            grey = round((p * 3 + i) / 5 * 0.5 * 255)
            assert np.abs(picture[y + 5 : y + 35, x + 5 : x + 15].astype(int) - grey).max() <= 1
            framed = (picture[y - 1, x + 10] == MARK).all()
            assert framed == anchors[p, i].item()
    assert (picture[-1, -1] == PAPER).all()


def test_more_rewards_make_room_for_their_lines():
    anchors = torch.zeros(1, 4, dtype=torch.bool)
    one, three = sheet(anchors, scores=1), sheet(anchors, scores=3)
    assert three.height - one.height == 2 * 2 * LINE  # two rows of pictures
    assert three.width == one.width


def test_an_image_tensor_is_comfyuis_layout():
    tensor = image_tensor(sheet(torch.zeros(1, 2, dtype=torch.bool)))
    assert tensor.dtype == torch.float32
    assert tensor.shape[0] == 1
    assert tensor.shape[3] == 3
    assert 0 <= tensor.min() < tensor.max() <= 1


def test_the_average_ends_where_its_definition_says_and_higher_values_are_higher_up():
    rising = [(i, float(i)) for i in range(30)]
    picture = np.asarray(curves({"up": rising, "down": [(i, -v) for i, v in rising]}, 400, 150))
    assert picture.shape == (300, 400, 3)
    ends = []
    for chart in (picture[:150], picture[150:]):
        rows = np.argwhere((chart[:, 400 - RIGHT] == SMOOTH).all(-1))[:, 0]
        assert len(rows) > 0
        ends.append(rows.mean())
    assert TOP <= ends[0] < 75 < ends[1] <= 150 - BOTTOM
    low, high = -1.45, 30.45  # 5 % around 0 to 29
    expected = 150 - BOTTOM - (moving_average([v for _, v in rising])[-1] - low) / (high - low) * (150 - BOTTOM - TOP)
    assert abs(ends[0] - expected) <= 1.5
    assert not (picture[:, : LEFT - 1] == SMOOTH).all(-1).any()


def test_the_moving_average_is_that_of_the_definition():
    assert moving_average([1.0, 2.0, 4.0]) == pytest.approx([1.0, 1.2, 1.76])


def test_flat_single_and_missing_values_are_drawn_too():
    for series in ([(0, 1.0)], [(0, 0.0), (1, 0.0)], [(0, None), (1, 2.0)], [(0, None)], []):
        assert curves({"odd": series}, 300, 120).size == (300, 120)


# ---- what comes from a graph

PLAIN = torch.linspace(0, 1, 2 * 4 * 5 * 3).view(2, 4, 5, 3)


def with_value(value: float) -> torch.Tensor:
    images = PLAIN.clone()
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 4, 5, 4), r"Here got pictures with an alpha channel: take it away \(Split Image with Alpha\)"),
        (PLAIN[:0], r"Here got pictures of shape \[0, 4, 5, 3\]: must be \[N, height, width, 3\], N >= 1"),
        (PLAIN[0], r"of shape \[4, 5, 3\]"),
        (PLAIN[..., :1], r"of shape \[2, 4, 5, 1\]"),
        (PLAIN[:, :, :0], r"of shape \[2, 4, 0, 3\]"),
        (PLAIN.movedim(-1, 1), r"of shape \[2, 3, 4, 5\]"),
        ((PLAIN * 255).byte(), "pictures of type torch.uint8: must be floating point, from 0 to 1"),
        (PLAIN * 255, "pictures with values from 0 to 255: must be from 0 to 1"),
        (PLAIN * 2 - 1, "with values from -1 to 1: must be from 0 to 1"),
        (with_value(float("nan")), "with values from nan to nan: must be"),
        (with_value(float("inf")), "with values from 0 to inf: must be"),
    ],
)
def test_a_graphs_pictures_are_refused_with_what_does_not_fit(images, message):
    with pytest.raises(PictureError, match=message) as caught:
        channels_first(images, "Here")
    assert "\n" not in str(caught.value)


def test_what_scaling_overshot_is_cut_off_and_half_precision_widened():
    """Without that, 8 bits would wrap: 1.1 of white is 281, and 281 - 256 nearly black."""
    found = channels_first(torch.stack([with_value(1.1), with_value(-0.1)]).flatten(0, 1), "Here")
    assert (found.shape, found.dtype) == ((4, 3, 4, 5), torch.float32)
    assert (found[1, 0, 2, 3], found[3, 0, 2, 3]) == (1, 0)
    assert torch.equal(found[0], PLAIN[0].movedim(-1, 0))
    assert channels_first(PLAIN.half(), "Here").dtype == torch.float32


def test_a_mask_of_truth_values_is_black_and_white():
    assert zero_to_one(torch.tensor([[True, False]]), "a mask").tolist() == [[1, 0]]


def test_pictures_beside_each_other_have_frames_of_what_is_right_and_a_line_above():
    grey = torch.full((2, 3, 40, 40), 0.5)
    given = {"pictures": {"before": grey, "after": grey}, "captions": ["one", "two"], "columns": 2, "edge": 40}
    plain = np.asarray(side_by_side(**given, right={"after": [True, False]}))
    titled = np.asarray(side_by_side(**given, right={"after": [True, False]}, title="both of them"))
    assert titled.shape[0] - plain.shape[0] == LINE + GAP
    assert np.array_equal(titled[LINE + GAP :][LINE:], plain[LINE:])
    assert (titled[: LINE + GAP] != PAPER).any()
    for colour, columns in ((sheets.RIGHT, (0, 1)), (WRONG, (1, 2))):
        _, x = np.nonzero((plain == colour).all(-1))
        low, high = (plain.shape[1] * n / 2 for n in columns)
        assert len(x) > 0
        assert x.min() > low
        assert x.max() < high
