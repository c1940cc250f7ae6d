"""What the checks of trainer.diagnosis say about a stored run."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..diagnosis import Series, diagnose
from ..store.facts import finite
from ..store.reader import Reader
from .runs import tree


class StoredCurves(Mapping[str, Series]):
    """The metrics of a store, each read when a check asks for it."""

    def __init__(self, store: Reader):
        self.store = store

    def __getitem__(self, name: str) -> Series:
        rows = [(iteration, finite(value)) for iteration, value in self.store.curve(name)]
        if not rows:
            raise KeyError(name)
        return rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.store.names())

    def __len__(self) -> int:
        return len(self.store.names())


def findings(store: Reader) -> list[dict[str, Any]]:
    """As JSON takes them; none if the store does not hold the settings that give the curves their meaning."""
    settings = tree(store.info().get("settings"))
    try:
        found = diagnose(StoredCurves(store), settings)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):  # half written, or of another version
        return []
    return [asdict(finding) for finding in found]
