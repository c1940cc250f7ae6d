"""At which strengths a run's LoRA was tried, as a command or a node stored it in the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..store.facts import change_facts, finite
from ..store.reader import Reader
from .runs import LABELS, sequence, text, tree

FACT = "strengths"
MOST = 100  # strengths
NUMBERS = ("after", "difference", "standard_error")


def keep(folder: Path, found: Mapping[str, Any], iteration: int | None) -> None:
    """Store what `training.strengths.told` says of the LoRA after so many iterations, in the place of an earlier table.

    Raises:
        StoreError: the run's store is locked or broken.
    """
    change_facts(folder, **{FACT: {**found, "iteration": iteration}})


def strengths(store: Reader) -> dict[str, Any] | None:
    """The table, as JSON takes it, whoever wrote it; None if there is none."""
    known = tree(store.info().get(FACT))
    rows = [row(tree(each)) for each in sequence(known.get("strengths"))[:MOST]]
    if not rows:
        return None
    numbers = {name: finite(known.get(name)) for name in ("recommended", "pictures", "iteration")}
    return {**numbers, "strengths": rows}


def row(stored: Mapping[str, Any]) -> dict[str, Any]:
    rewards = [(text(name), tree(its)) for name, its in list(tree(stored.get("rewards")).items())[:LABELS]]
    return {
        "strength": finite(stored.get("strength")),
        "rewards": {name: {n: finite(its.get(n)) for n in NUMBERS} for name, its in rewards},
    }
