"""What a person wants of a run that is at work in this process."""

import unicodedata
from dataclasses import replace
from typing import Any, Protocol

from ..errors import Refused
from ..history.housekeeping import TITLE_LENGTH
from ..settings.config import GrpoSettings, OptimizerSettings
from ..settings.described import Setting, described

ACTIONS = ("pause", "resume", "stop", "save", "change")


def changeable(section: type, name: str) -> Setting:
    """A setting that ends where its number field does: what is above is a slip that would ruin a run at work."""
    setting = described(section, name)
    _, highest = setting.number_field
    return replace(setting, most=highest)


CHANGEABLE = {
    "learning_rate": changeable(OptimizerSettings, "learning_rate"),
    "strength": changeable(GrpoSettings, "strength"),
}
LIMITS = {name: {"above": setting.above, "most": setting.most} for name, setting in CHANGEABLE.items()}


class Control(Protocol):
    """How the training loop is told; each returns at once and may be called from any thread."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def stop(self) -> None: ...

    def save(self) -> None: ...

    def change(self, learning_rate: float | None = None, strength: float | None = None) -> None: ...


def obey(control: Control, wish: dict[str, Any]) -> None:
    """Pass a wish on.

    Args:
        wish: `{"action": one of ACTIONS}`, for "change" with at least one of CHANGEABLE.

    Raises:
        Refused: 400, it is none.
    """
    action = wish.get("action")
    values = {name: wish[name] for name in CHANGEABLE if wish.get(name) is not None}
    if action not in ACTIONS:
        raise Refused(400, f"action must be one of {', '.join(ACTIONS)}")
    if bool(values) != (action == "change"):
        raise Refused(400, f"{' or '.join(CHANGEABLE)} belongs to the action change, and to no other")
    for name, value in values.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and CHANGEABLE[name].allows(value)):  # not so for NaN either
            raise Refused(400, f"{name} must be a number {CHANGEABLE[name].range}")
    getattr(control, action)(**{name: float(value) for name, value in values.items()})


def title_of(body: dict[str, Any]) -> str:
    """A run's new name, without spaces around it.

    Raises:
        Refused: 400, it is no line of text, or a long one.
    """
    title = body.get("title")
    if not isinstance(title, str):
        raise Refused(400, "title must be a text")
    title = title.strip()
    if len(title) > TITLE_LENGTH or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in title):
        raise Refused(400, f"title must be one line of at most {TITLE_LENGTH} characters")
    return title
