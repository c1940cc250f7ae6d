"""What live messages look like: small, and only hints, as all of it can be read again."""

from collections.abc import Mapping
from typing import Any

from ..store.facts import finite

EVENT = "neighbor_grpo"  # their type, on ComfyUI's websocket
VERSION = 1


def message(kind: str, run: str, iteration: int, **more: Any) -> dict[str, Any]:
    """Of the kind "started", "iteration", "state", "saved", "changed", "evaluated" or "finished".

    Args:
        iteration: of "iteration" its number, from 0; of the others the iterations done.
    """
    return {"version": VERSION, "type": kind, "run": run, "iteration": iteration, **more}


def of_iteration(run: str, iteration: int, metrics: Mapping[str, float | None]) -> dict[str, Any]:
    return message("iteration", run, iteration, metrics={name: finite(value) for name, value in metrics.items()})
