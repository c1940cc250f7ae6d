"""Curves of a run, thinned to what a chart can show."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..store.facts import finite
from ..store.reader import Reader

POINTS = 800
POINTS_IN_ALL = 400_000  # 40 metrics with 10,000 buckets


@dataclass(frozen=True)
class Curve:
    """One metric in buckets of `step` iterations: bucket n holds the iterations x[n] to x[n] + step - 1.

    A bucket without a finite value is None, a gap. At step 1 there are no `low` and `high`: they would be the values.
    """

    x: list[int]  # first iteration of each bucket, without gaps
    mean: list[float | None]
    low: list[float | None] | None
    high: list[float | None] | None
    step: int

    def to_dict(self) -> dict[str, object]:
        return {k: v for k, v in vars(self).items() if v is not None}


def curves(
    store: Reader, names: Iterable[str] | None = None, points: int = POINTS, first: int = 0, last: int | None = None
) -> dict[str, Curve]:
    """The metrics `names` (None: all) between the iterations `first` and `last`, both included, by name.

    Names that the store does not have are left out. At most `points` buckets each, and POINTS_IN_ALL together.
    """
    end = store.done() - 1
    last = end if last is None else min(last, end)
    there = store.names()
    wanted = there if names is None else [n for n in dict.fromkeys(names) if n in there]
    step = bucket_size(first, last, max(1, min(points, POINTS_IN_ALL // max(len(wanted), 1))))
    return {name: _curve(store, name, first, last, step) for name in wanted}


def bucket_size(first: int, last: int, points: int) -> int:
    """The smallest power of two with which `points` buckets, counted from iteration 0, cover first..last.

    So a growing run keeps its buckets until their number doubles, and a part of a run is cut where the whole is.
    """
    step = 1
    while last // step - first // step + 1 > points:
        step *= 2
    return step


def _curve(store: Reader, name: str, first: int, last: int, step: int) -> Curve:
    start, count = first // step, max(last // step - first // step + 1, 0)
    gaps: list[float | None] = [None] * count
    mean, low, high = gaps.copy(), gaps.copy(), gaps.copy()
    for bucket, average, least, most in store.buckets(name, first, last, step):
        n = bucket - start
        # a mean of equal values is that value, and rounding would show as a step
        mean[n], low[n], high[n] = finite(min(max(average, least), most)), least, most
    x = [n * step for n in range(start, start + count)]
    return Curve(x, mean, low if step > 1 else None, high if step > 1 else None, step)
