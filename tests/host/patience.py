"""Waiting in tests: for something to happen, however long a loaded machine takes for it."""

import time
from collections.abc import Callable

GUARD = 1200  # seconds; after them nothing will come any more: it ends a test that hangs, and is no test's expectation


def until(
    condition: Callable[[], object], complaint: Callable[[], object] = str, pause: Callable[[], object] | None = None
) -> None:
    """Return as soon as the condition holds; fail with the complaint if it does not within GUARD."""
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, complaint()
        if pause:
            pause()
        else:
            time.sleep(0.02)
