"""What a forward pass, an update and an iteration ask of a card, and what they take on it at the least.

By the run's own stages at their real size, without weights and without a card: see `planning.kernels`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..planning.advice import candidates, title
from ..planning.cards import Card
from ..planning.kernels import FORWARD, KINDS, PAIRS, Work
from ..planning.phases import measure as measure_plan
from ..planning.report import Report
from ..planning.roofline import iteration, seconds
from ..settings.config import Config

ALL = "all"


def measure(config: Config, cards: Sequence[Card], progress: Callable[[str], None]) -> dict[str, Any]:
    """Counts of each memory plan, each in about half a minute for FLUX.1-dev; `progress` is told its name before."""
    plans = []
    for plan in candidates(config):
        progress(title(plan))
        work = measure_plan(config, plan).work
        drawn, trained = config.run.drawn_at_once, config.run.micro_batch
        parts = {f"forward of {drawn}": work[FORWARD], f"update of {trained}": work[PAIRS]}
        parts["iteration"] = iteration(work)
        plans.append({"name": title(plan), "parts": {name: _counts(part, cards) for name, part in parts.items()}})
    return {"settings": Report(config, ()).notes[0], "cards": [vars(card) for card in cards], "plans": plans}


def _counts(work: Work, cards: Sequence[Card]) -> dict[str, dict[str, Any]]:
    """Of each kind of kernel and of all: how many, FLOP, bytes, and each card's seconds."""
    kinds = {kind: Work({kernel: n for kernel, n in work.items() if kernel.kind == kind}) for kind in KINDS}
    return {
        kind: {
            "kernels": part.total(),
            "flop": sum(n * kernel.flop for kernel, n in part.items()),
            "bytes": sum(n * kernel.bytes for kernel, n in part.items()),
            "seconds": {card.name: seconds(part, card) for card in cards},
        }
        for kind, part in {**kinds, ALL: work}.items()
        if part
    }


def table(result: dict[str, Any]) -> str:
    cards = [card["name"] for card in result["cards"]]
    head = ["plan", "part", "kind", "kernels", "TFLOP", "GB", *(f"{name}, s" for name in cards)]
    rows = [head, ["---"] * len(head), *_rows(result)]
    return "\n".join([result["settings"], "", *(f"| {' | '.join(row)} |" for row in rows)])


def _rows(result: dict[str, Any]) -> Iterator[list[str]]:
    for plan in result["plans"]:
        for part, kinds in plan["parts"].items():
            for kind, counts in kinds.items():
                numbers = [counts["flop"] / 1e12, counts["bytes"] / 1e9, *counts["seconds"].values()]
                row = [plan["name"], part, kind, str(counts["kernels"]), *(f"{number:.4g}" for number in numbers)]
                yield [f"**{word}**" for word in row] if kind == ALL else row
