"""The pictures of a report: within the page, and not too many."""

import base64
from pathlib import Path
from typing import Any

from .. import history
from ..history import Reader
from .html import Markup, h

BUDGET = 8_000_000  # bytes of all pictures
MOST_PROMPTS = 6  # of an iteration
MOST_CANDIDATES = 32  # of a prompt


class Album:
    """Pictures of one run, as long as the budget lasts."""

    def __init__(self, store: Reader, budget: int = BUDGET):
        self.store = store
        self.left = budget
        self.left_out = 0

    def picture(self, path: Path | None, text: str) -> Markup:
        """One picture, with what it shows in words."""
        if path is None:
            return Markup("")
        if path.stat().st_size > self.left:
            self.left_out += 1
            return Markup("")
        data = path.read_bytes()
        self.left -= len(data)
        return h("img", src=f"data:image/webp;base64,{base64.b64encode(data).decode()}", alt=text)

    def iteration(self, number: int) -> list[Markup]:
        """The candidates of an iteration's prompts, best first."""
        groups = history.groups(self.store, number, geometric=False)
        shown = [self.group(number, group) for group in groups[:MOST_PROMPTS]]
        return [h("h3", f"Iteration {number}"), *shown]

    def group(self, iteration: int, group: dict[str, Any]) -> Markup:
        best = sorted(group["candidates"], key=lambda c: -(c["advantage"] or 0))[:MOST_CANDIDATES]
        cells = []
        for c in best:
            words = [f"{name} {value:.4f}" for name, value in c["scores"].items() if value is not None]
            path = history.candidate_tile(self.store, iteration, group["slot"], c["candidate"])
            picture = self.picture(path, f"candidate {c['candidate']}, {', '.join(words)}")
            cells.append(h("figure", picture, h("figcaption", [h("span", w) for w in words]), class_="tile"))
        return h("section", h("h4", group["prompt"]), h("div", cells, class_="tiles"))

    def before_and_after(self, first: int, last: int) -> Markup:
        """The fixed prompts at two moments, side by side."""
        rows = []
        for shown in history.evaluation(self.store, first)[: 2 * MOST_PROMPTS]:
            cells = []
            for moment in (first, last):
                path = history.evaluation_tile(self.store, moment, shown["number"])
                cells.append(h("figure", self.picture(path, f"after {moment}"), h("figcaption", f"after {moment}")))
            rows.append(h("section", h("h4", shown["prompt"]), h("div", cells, class_="tiles pair")))
        return h("div", rows, class_="pairs")
