"""Ends a run on a finding that its settings name."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..events import Event, IterationDone
from . import diagnose
from .record import Series


class Curves(Protocol):
    """Where the curves of a run's earlier iterations are, see `store.reader.Reader`."""

    def names(self) -> list[str]: ...

    def curve(self, name: str) -> Series: ...


class Watch:
    """A listener.

    Args:
        settings: of the run, `Config.to_dict()`; `run.stop_on` names the findings that end it.
        earlier: curves of the iterations that a resumed run has done already.
        stop: told why the run should end, "stopped by <check>: <evidence>".
    """

    def __init__(self, settings: Mapping[str, Any], earlier: Curves, stop: Callable[[str], None]):
        self.settings = settings
        self.names = settings["run"]["stop_on"]
        self.stop = stop
        self.curves = {name: list(earlier.curve(name)) for name in earlier.names()} if self.names else {}

    def __call__(self, event: Event) -> None:
        if not self.names or not isinstance(event, IterationDone):
            return
        for name, value in event.metrics.items():
            self.curves.setdefault(name, []).append((event.iteration, value))
        found = diagnose(self.curves, self.settings, self.names)
        if found:
            self.stop(f"stopped by {found[0].check}: {found[0].evidence}")
