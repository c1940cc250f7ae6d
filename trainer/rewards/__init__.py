"""Rewards: one file a family, and a line in `table`. `build` makes one from its kind, the name a config uses.

Nothing in this file imports torch: a config's rewards are checked before that. See `base` for what a reward is.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import brief
from ..plugins import is_own, outline_of
from .errors import RewardError, RewardUnavailable
from .table import KINDS, Kind, OwnKind
from .weights import find

if TYPE_CHECKING:
    from .base import Reward

__all__ = ["KINDS", "Kind", "RewardError", "RewardUnavailable", "build", "check_prompts", "check_weights", "kind_of"]


def kind_of(name: str) -> Kind:
    """The table's, or a class of the user's own."""
    return OwnKind(name) if is_own(name) else KINDS[name]


def build(kind: str, options: Mapping[str, Any], device: str) -> "Reward":
    """The reward of a kind, on its device.

    Raises:
        RewardError: its files are missing or damaged, or it takes other options.
        ConfigError: a class of the user's own that is not there, or no reward.
    """
    make = kind_of(kind).load()
    outline = outline_of(make)
    given = {**options, **({"device": device} if "device" in outline.takes else {})}
    if wrong := outline.misfit(given):
        raise RewardError(f"the reward {brief(kind)} {wrong}")
    reward = make(**given)
    if "device" not in given and hasattr(reward, "to"):
        reward.to(device)
    return reward


def check_prompts(kinds: Iterable[str], prompts: Iterable[str]) -> None:
    """Raises RewardError if a reward of these kinds cannot score one of the prompts: before anything is loaded."""
    found = [KINDS[kind].check_prompt for kind in kinds if kind in KINDS]
    checks = [check for check in found if check]
    for prompt in prompts:
        for check in checks:
            check(prompt)


def check_weights(kind: str, options: Mapping[str, Any]) -> None:
    """Raises RewardError if weights that `build` would look for are not there, without building anything."""
    for option, what in kind_of(kind).weights.items():
        find(what, options.get(option, ""))
