"""The runs at work in this ComfyUI: how a person's wishes reach them, and how browsers hear of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from server import PromptServer

from ..trainer.board.messages import EVENT

if TYPE_CHECKING:
    from ..trainer.board.live import Announcer
    from ..trainer.training.control import Control

_controls: dict[str, Control] = {}
controls: Mapping[str, Control] = MappingProxyType(_controls)  # by the runs' ids, which are their folders' names


def send(message: dict[str, Any]) -> None:
    """To every browser. May be called in any thread."""
    PromptServer.instance.send_sync(EVENT, message)


@contextmanager
def live(folder: Path) -> Iterator[tuple[Control, Announcer]]:
    """A training in `folder`: the control it is to obey, and the listener that tells of it."""
    from ..trainer.board.live import Announcer
    from ..trainer.training.control import Control

    control, announcer = Control(), Announcer(folder.name, send)
    _controls[folder.name] = control
    try:
        yield control, announcer
    finally:
        del _controls[folder.name]
        announcer.close()
