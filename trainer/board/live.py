"""A training that tells browsers of itself."""

from collections.abc import Callable
from typing import Any

from ..events import Changed, Evaluated, Event, Finished, Halved, IterationDone, LetGo, Saved, Started
from .messages import message, of_iteration


class Announcer:
    """A listener that turns events into live messages.

    Args:
        run: id of the run.
        send: passes one message on; called in the training's thread.
    """

    def __init__(self, run: str, send: Callable[[dict[str, Any]], None]):
        self.run, self.send = run, send
        self.finished: Finished | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.tell("started", event)
            case IterationDone():
                self.send(of_iteration(self.run, event.iteration, event.metrics))
            case Changed() | Halved() | LetGo():
                self.tell("changed", event)
            case Evaluated():
                self.tell("evaluated", event)
            case Saved():
                self.tell("saved", event)
            case Finished():
                self.finished = event
            case _ if event.state is not None:
                self.tell("state", event, state=event.state)

    def tell(self, kind: str, event: Event, **more: Any) -> None:
        self.send(message(kind, self.run, event.iteration, **more))

    def close(self) -> None:
        """Tell the end, when the run has let its folder go: whoever asks then is told the same."""
        if self.finished:
            self.tell("finished", self.finished, state=self.finished.state)
