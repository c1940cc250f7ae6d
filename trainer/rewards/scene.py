"""Whether a picture shows what its caption says, counted in its pixels: for the embedded model's scenes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tiny.scene_captions import COLOURS, PLACES, Named
from .scene_facts import named

COLOURFUL = 0.3  # max - min of a pixel's channels: backgrounds have up to .1, things from .4 on
SPECK = 0.005  # of the picture's area: smaller spots are overlooked; the smallest thing, a fish, has .013
LARGEST = 0.075  # of it: things have up to .05, two that touch are larger
OFF_CENTRE = 0.1  # of an edge, that the middle of a thing is to one side of the picture's


ENDS = ("amin", "amax")


@dataclass(frozen=True)
class Spot:
    """A connected part of a picture that is colourful."""

    share: float  # of the picture's area
    hue: float  # degrees, of its mean colour
    middle: tuple[float, float]  # of its extent: x, y in 0 .. 1 from the upper left


class Scene:
    """1 if number, colour and place of the things are those of the prompt, as far as it names them; otherwise 0."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return facts(images, prompts).all(-1).float()


def facts(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Which of number, colour and place are right in pictures [N, 3, H, W]: [N, 3] bool; a fact not named is right."""
    found = spots_in(images)
    checked = [check(spots, named(text)) for spots, text in zip(found, prompts, strict=True)]
    return torch.tensor(checked, device=images.device).view(-1, 3)


def check(spots: Sequence[Spot], wanted: Named) -> tuple[bool, bool, bool]:
    """Number, colour and place of the things in one picture."""
    things = [spot for spot in spots if spot.share > SPECK]
    if not things or max(spot.share for spot in things) > LARGEST:
        return False, False, False
    number = wanted.number is None or len(things) == wanted.number + 1
    colour = wanted.colour is None or all(nearest(spot.hue) == wanted.colour for spot in things)
    place = wanted.place is None or all(lies(spot.middle, wanted.place) for spot in things)
    return number, colour, place


def spots_in(images: Tensor) -> list[list[Spot]]:
    """The colourful spots of each picture [N, 3, H, W]."""
    n, _, height, width = images.shape
    labels = regions((images.amax(1) - images.amin(1)) > COLOURFUL)
    # a number for each spot of each picture; 0 modulo the factor is a background
    factor = height * width + 1
    numbers, spot, area = (labels.flatten(1) + factor * torch.arange(n, device=labels.device)[:, None]).unique(
        return_inverse=True, return_counts=True
    )
    spot = spot.flatten()
    colour = images.new_zeros(len(numbers), 3).index_add_(0, spot, images.permute(0, 2, 3, 1).reshape(-1, 3))
    hues = hue(colour / area[:, None])
    middles = torch.stack([middle(spot, len(numbers), labels.shape, axis) for axis in (2, 1)], 1)
    found: list[list[Spot]] = [[] for _ in range(n)]
    rows = (numbers.tolist(), area.tolist(), hues.tolist(), middles.tolist())
    for number, pixels, angle, (x, y) in zip(*rows, strict=True):
        if number % factor:
            found[number // factor].append(Spot(pixels / (factor - 1), angle, (x, y)))
    return found


def middle(spot: Tensor, spots: int, shape: Sequence[int], axis: int) -> Tensor:
    """The middle of each spot's extent along an axis, [spots] in 0 .. 1; `spot` [N * H * W] says whose a pixel is."""
    places = torch.arange(shape[axis], device=spot.device).view([-1 if a == axis else 1 for a in range(3)])
    places = places.expand(*shape).flatten()
    first, last = (places.new_zeros(spots).scatter_reduce(0, spot, places, how, include_self=False) for how in ENDS)
    return (first + last + 1) / 2 / shape[axis]


def regions(mask: Tensor) -> Tensor:
    """Connected parts of a mask [N, H, W] bool, corners included: the same positive number in each pixel of one."""
    _, height, width = mask.shape
    number = torch.arange(1.0, height * width + 1, device=mask.device).view(1, height, width) * mask
    while True:
        spread = highest_around(number) * mask
        if torch.equal(spread, number):
            return number.long()
        number = spread


def highest_around(x: Tensor) -> Tensor:
    """The largest number in each 3 x 3 pixels of [N, H, W]; `max_pool2d` takes ten times as long."""
    for axis in (1, 2):
        size, before = x.shape[axis] - 1, x
        x = before.clone()
        for to, of in ((1, 0), (0, 1)):
            part = x.narrow(axis, to, size)
            torch.maximum(part, before.narrow(axis, of, size), out=part)
    return x


def lies(middle: tuple[float, float], place: int) -> bool:
    """Whether the middle of a thing, (x, y), is on the side that PLACES[place] means."""
    _, wanted = list(PLACES.values())[place]
    off = [(at - 0.5) * (to - 0.5) - OFF_CENTRE * abs(to - 0.5) for at, to in zip(middle, wanted, strict=True)]
    return min(off) >= 0  # the axis that does not matter has 0


def nearest(angle: float) -> int:
    """The index in COLOURS of the nearest hue, degrees."""
    distances = [abs((known - angle + 180) % 360 - 180) for known in HUES]
    return distances.index(min(distances))


def hue(colour: Tensor) -> Tensor:
    """Degrees on the circle of hues, of colours [..., 3]."""
    red, green, blue = colour.unbind(-1)
    return torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue).rad2deg()


HUES = hue(torch.tensor(list(COLOURS.values())) / 255).tolist()
