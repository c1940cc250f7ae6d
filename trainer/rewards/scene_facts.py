"""What a prompt says of number, colour and place, which the scene reward checks."""

from ..errors import brief
from ..tiny.scene_captions import COLOURS, PLACES, Named, read
from .errors import RewardError


def named(text: str) -> Named:
    """The facts that a prompt has.

    Raises:
        RewardError: it has none that can be checked.
    """
    facts = read(text)
    if facts == Named(None, None, None):
        raise RewardError(
            f"prompt {brief(text)}: the reward 'tiny-scene' checks a number (one to three), a colour "
            f"({', '.join(COLOURS)}) and a place ({', '.join(PLACES)}), and finds none; another reward fits it"
        )
    return facts
