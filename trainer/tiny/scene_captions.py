"""What the second embedded model draws: things in rows, and how a caption says them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = {
    "red": (214, 45, 45),
    "yellow": (240, 190, 20),
    "green": (45, 160, 70),
    "blue": (40, 105, 220),
    "purple": (145, 65, 190),
}
NUMBERS = ("one", "two", "three")
# place -> what the caption says, and where the row's middle is: (x, y) in 0 .. 1 from the upper left
PLACES = {
    "left": ("on the left", (0.25, 0.5)),
    "right": ("on the right", (0.75, 0.5)),
    "top": ("at the top", (0.5, 0.25)),
    "bottom": ("at the bottom", (0.5, 0.75)),
}
# name in the emoji set -> words of the caption, one and several
THINGS = {
    "apple": ("apple", "apples"),
    "heart": ("heart", "hearts"),
    "star": ("star", "stars"),
    "fish": ("fish", "fish"),
    "car": ("car", "cars"),
    "mushroom": ("mushroom", "mushrooms"),
    "house": ("house", "houses"),
    "bell": ("bell", "bells"),
    "tophat": ("hat", "hats"),
    "cat": ("cat", "cats"),
}


@dataclass(frozen=True)
class Scene:
    """A row of things alike. Each fact is an index into the tables above."""

    number: int
    colour: int
    thing: int
    place: int


SCENES = [Scene(*facts) for facts in itertools.product(*map(range, map(len, (NUMBERS, COLOURS, THINGS, PLACES))))]


def caption(scene: Scene) -> str:
    """'two red apples on the left'."""
    things = list(THINGS.values())[scene.thing]
    place, _ = list(PLACES.values())[scene.place]
    return f"{NUMBERS[scene.number]} {list(COLOURS)[scene.colour]} {things[scene.number > 0]} {place}"


@dataclass(frozen=True)
class Named:
    """What a caption names of number, colour and place; None: nothing of that kind, or more than one."""

    number: int | None
    colour: int | None
    place: int | None


def read(text: str) -> Named:
    """The facts of a caption, in whatever words it stands among."""
    words = text.lower().replace(",", " ").split()

    def only(known: Iterable[str]) -> int | None:
        found = [index for index, word in enumerate(known) if word in words]
        return found[0] if len(found) == 1 else None

    return Named(only(NUMBERS), only(COLOURS), only(PLACES))
