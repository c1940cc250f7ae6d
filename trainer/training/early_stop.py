"""Ends a run whose rewards have stopped rising."""

from collections.abc import Callable, Mapping

from ..events import Event, IterationDone

SMOOTHING = 0.9  # of the moving averages: about ten iterations


class EarlyStop:
    """A listener. Watches a moving average of every trained reward; any that reaches a new best keeps the run going.

    Args:
        weights: of the trained rewards; a negative one is to fall.
        patience: iterations without a new best that end the run; 0 never does.
        stop: told the reason why the run should end, see `Control.stop`.
    """

    def __init__(self, weights: Mapping[str, float], patience: int, stop: Callable[[str], None]):
        self.weights = weights
        self.patience = patience
        self.stop = stop
        self.average: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.waited = 0

    def __call__(self, event: Event) -> None:
        if not isinstance(event, IterationDone):
            return
        rose = False
        for name, weight in self.weights.items():
            value = weight * event.metrics[f"reward/{name}"]
            self.average[name] = SMOOTHING * self.average.get(name, value) + (1 - SMOOTHING) * value
            if self.average[name] > self.best.get(name, float("-inf")):
                self.best[name], rose = self.average[name], True
        self.waited = 0 if rose else self.waited + 1
        if 0 < self.patience <= self.waited:
            self.stop(f"no trained reward has reached a new best for {self.waited} iterations")
