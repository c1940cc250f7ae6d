"""Seconds that a card needs at the least: each kernel's arithmetic or its bytes, whichever takes longer.

What is missing from them: kernels that fall short of the card's large ones, and a host that hands them over too slowly.
"""

from collections import Counter
from collections.abc import Mapping

from .cards import Card
from .kernels import FETCH, Kernel, Work
from .phases import OF_ITERATION


def seconds(work: Work, card: Card) -> float:
    """Of kernels one after the other; what is fetched from the host comes beside them."""
    times = by_kind(work, card)
    fetching = times.pop(FETCH, 0.0)
    return max(sum(times.values()), fetching)


def by_kind(work: Work, card: Card) -> dict[str, float]:
    """Seconds of each kind of kernel."""
    found: dict[str, float] = {}
    for kernel, times in work.items():
        found[kernel.kind] = found.get(kernel.kind, 0.0) + times * _of(kernel, card)
    return found


def iteration(work: Mapping[str, Work]) -> Work:
    """The kernels of a whole iteration, by those of its phases; one without a model may have none."""
    return sum((work.get(phase, Counter()) for phase in OF_ITERATION), Counter())


def _of(kernel: Kernel, card: Card) -> float:
    if kernel.kind == FETCH:
        return kernel.bytes / (card.host * 1e9)
    rate = {1: card.fp8, 2: card.bf16}.get(kernel.width, card.float32)
    return max(kernel.flop / (rate * 1e12), kernel.bytes / (card.bandwidth * 1e12))
