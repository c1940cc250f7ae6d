"""Contact sheets and curves: what is where, told by pixels."""

import numpy as np
import pytest
import torch

from trainer.pictures.plot import BOTTOM, LEFT, RIGHT, SMOOTH, TOP, curves, moving_average
from trainer.pictures.sheets import GAP, LINE, MARK, PAPER, contact_sheet, image_tensor


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
