"""The page."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__, history
from ..history import Curve, Reader, Summary
from .chart import Line, chart
from .html import Markup, h, together
from .pictures import Album
from .style import CSS

POINTS = 400  # of a curve
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # no script, whatever a prompt says
PHASES, REWARD, SPREAD = "seconds/", "reward/", "reward_std/"
SPARSE = ("velocity_change", "velocity_norm")
LOG_LINES = 100
BANDS = (
    "Dashed rewards are held out. The band of a reward is its standard deviation within a group; any other spans "
    "the values of the iterations that one point stands for."
)


def report(folder: Path) -> str:
    """The whole page.

    Raises:
        StoreError: the run's store cannot be read.
    """
    summary = history.summary(folder)
    with history.reading(folder) as store:
        facts = history.details(store)
        body = together(
            h("h1", summary.title),
            head(summary, facts),
            findings(store),
            charts(summary, history.curves(store, points=POINTS)),
            pictures(store),
            strengths(history.strengths(store)),
            h("h2", "Settings"),
            changed(facts["changes"]),
            h("details", h("summary", "All of them"), h("pre", json.dumps(facts["settings"], indent=2))),
            log(facts["log"]),
            h("p", f"Made by neighbor-grpo {__version__}.", class_="note"),
        )
    page = h(
        "html",
        h(
            "head",
            h("meta", charset="utf-8"),
            h("meta", http_equiv="Content-Security-Policy", content=POLICY),
            h("meta", name="viewport", content="width=device-width, initial-scale=1"),
            h("title", summary.title),
            h("style", Markup(CSS)),
        ),
        h("body", body),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n".encode("utf-8", "replace").decode()  # a prompt may hold half a character


def head(summary: Summary, facts: Mapping[str, Any]) -> Markup:
    began = summary.started and datetime.fromtimestamp(summary.started, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    rows = {
        "State": summary.state,
        "Iterations": f"{summary.iteration} of {summary.iterations}",
        "Started": began,
        "Model": summary.model,
        "Trained on": ", ".join(summary.trained),
        "Held out": ", ".join(summary.held_out),
        "Prompts": len(facts["prompts"]),
        "Folder": summary.id,
    }
    return h("dl", [[h("dt", name), h("dd", value)] for name, value in rows.items() if value], class_="facts")


def findings(store: Reader) -> Markup:
    found = [
        h(
            "div",
            h("b", f"{f['check']}, since iteration {f['since']}"),
            h("p", f["evidence"]),
            h("p", f["advice"]),
            class_=f"finding {f['severity']}",
        )
        for f in history.findings(store)
    ]
    return together(h("h2", "Diagnosis"), found or h("p", "No check found anything wrong.", class_="note"))


def charts(summary: Summary, curves: Mapping[str, Curve]) -> Markup:
    """Rewards with the groups' spread first, phases together, then every other metric."""
    known = [name for name in (*summary.trained, *summary.held_out) if REWARD + name in curves]
    rewards = [reward(name, curves, name in summary.held_out) for name in known]
    phases = [line(curve, name.removeprefix(PHASES)) for name, curve in curves.items() if name.startswith(PHASES)]
    others = [name for name in curves if not name.startswith((PHASES, REWARD, SPREAD))]
    drawn = [chart("reward", rewards), *(chart(name, [other(name, curves[name])]) for name in others)]
    return together(
        h("h2", "Curves"),
        h("p", BANDS, class_="note"),
        h("div", drawn, chart("seconds per phase", phases), class_="charts"),
    )


def other(name: str, curve: Curve) -> Line:
    """One that is measured now and then has no gaps between."""
    if name not in SPARSE:
        return line(curve)
    there = [n for n, value in enumerate(curve.mean) if value is not None]
    return Line("", [curve.x[n] for n in there], [curve.mean[n] for n in there])


def line(curve: Curve, label: str = "") -> Line:
    return Line(label, curve.x, curve.mean, curve.low, curve.high)


def reward(name: str, curves: Mapping[str, Curve], held_out: bool) -> Line:
    """With a standard deviation of the group on either side."""
    curve, spread = curves[REWARD + name], curves.get(SPREAD + name)
    if spread is None:
        return Line(name, curve.x, curve.mean, dashed=held_out)
    rows = [(m, s) if m is not None and s is not None else None for m, s in zip(curve.mean, spread.mean, strict=True)]
    low, high = ([r and r[0] + sign * r[1] for r in rows] for sign in (-1, 1))
    return Line(name, curve.x, curve.mean, low, high, held_out)


def pictures(store: Reader) -> Markup:
    album, there = Album(store), history.index(store)
    parts = []
    if len(there.evaluations) > 1:
        first, last = there.evaluations[0], there.evaluations[-1]
        parts += [h("h2", "Fixed prompts, before and after"), album.before_and_after(first, last)]
    if there.tiles:
        parts.append(h("h2", "Candidates, best first"))
        for iteration in dict.fromkeys((there.tiles[-1], there.tiles[0])):
            parts += album.iteration(iteration)
    if there.gone:
        gone = f"Iterations whose pictures are no longer kept (run.keep_tiles): {there.gone:,}."
        parts.append(h("p", gone, class_="note"))
    if album.left_out:
        parts.append(h("p", f"{album.left_out} pictures are left out, to keep this page small.", class_="note"))
    return together(parts)


def strengths(known: Mapping[str, Any] | None) -> Markup:
    """At which strengths the LoRA was tried, the recommended one marked."""
    if known is None:
        return Markup("")
    names = list(dict.fromkeys(name for row in known["strengths"] for name in row["rewards"]))
    heads = h("tr", h("th", "strength"), [h("th", name) for name in names])
    rows = [
        h(
            "tr",
            h("td", shown(row["strength"])),
            [h("td", cell(row["rewards"].get(name))) for name in names],
            class_="best" if row["strength"] == known["recommended"] else None,
        )
        for row in known["strengths"]
    ]
    after = f" after {known['iteration']:g} iterations" if known["iteration"] is not None else ""
    note = f"Of the LoRA{after}, on {shown(known['pictures'])} pictures, against the base model; best: "
    return together(
        h("h2", "LoRA strength"),
        h("p", note, h("b", shown(known["recommended"])), class_="note"),
        h("table", heads, rows),
    )


def cell(known: Mapping[str, float | None] | None) -> str:
    """A reward at a strength: what it is, and its rise over the base model."""
    after, rise, error = (shown((known or {}).get(name)) for name in ("after", "difference", "standard_error"))
    return f"{after} ({'' if rise.startswith('-') else '+'}{rise} +- {error})"


def shown(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def changed(changes: Sequence[object]) -> Markup:
    rows = [h("li", ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in c.items())) for c in changes if type(c) is dict]
    return h("ul", rows) if rows else Markup("")


def log(lines: list[dict[str, Any]]) -> Markup:
    if not lines:
        return Markup("")
    text = "\n".join(f"{entry['iteration']}: {entry['message']}" for entry in lines[-LOG_LINES:])
    return together(h("h2", "Log"), h("pre", text))
