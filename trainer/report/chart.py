"""A chart as SVG."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .html import Markup, h

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 22  # margins
TICKS = 4  # on an axis, about
COLOURS = 8  # --c0 to --c7, see style.py
Values = Sequence[float | None]  # None is a gap


@dataclass(frozen=True)
class Line:
    name: str  # empty if the chart's title says it
    x: Sequence[int]
    y: Values
    low: Values | None = None  # a band around the line
    high: Values | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Scale:
    """From values to pixels; `begin` and `end` are where the values' `low` and `high` lie."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin), 1)


def chart(title: str, lines: Sequence[Line]) -> Markup:
    """Lines over the iterations; empty if none has a value."""
    known = [v for line in lines for part in (line.y, line.low, line.high) for v in part or () if v is not None]
    if not known:
        return Markup("")
    first, last = min(line.x[0] for line in lines if line.x), max(line.x[-1] for line in lines if line.x)
    x = Scale(first, max(last, first + 1), LEFT, WIDTH - RIGHT)
    low, high = padded(min(known), max(known))
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    drawn = [draw(line, n % COLOURS, x, y) for n, line in enumerate(lines)]
    size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria_label": title}
    return h("figure", h("figcaption", title, legend(lines)), h("svg", axes(x, y), drawn, **size))


def draw(line: Line, colour: int, x: Scale, y: Scale) -> list[Markup]:
    band = []
    if line.low and line.high:
        for part in runs(zip(line.x, line.low, line.high, strict=True)):
            there = [f"{x(i)},{y(hi)}" for i, _, hi in part]
            back = [f"{x(i)},{y(lo)}" for i, lo, _ in reversed(part)]
            band.append(h("polygon", points=" ".join(there + back), class_=f"band c{colour}"))
    style = f"line c{colour}{' dashed' if line.dashed else ''}"
    parts = list(runs(zip(line.x, line.y, strict=True)))
    pieces = [h("polyline", points=" ".join(f"{x(i)},{y(v)}" for i, v in p), class_=style) for p in parts if len(p) > 1]
    points = [h("circle", cx=x(p[0][0]), cy=y(p[0][1]), r=1.5, class_=f"c{colour}") for p in parts if len(p) == 1]
    return band + pieces + points


def runs(rows: Iterable[tuple[float | None, ...]]) -> Iterator[list[tuple[float, ...]]]:
    """The rows between the gaps."""
    part: list[tuple[float, ...]] = []
    for row in rows:
        there = tuple(value for value in row if value is not None)
        if len(there) == len(row):
            part.append(there)
        elif part:
            yield part
            part = []
    if part:
        yield part


def legend(lines: Sequence[Line]) -> list[Markup]:
    entries = []
    for n, line in enumerate(lines):
        last = next((v for v in reversed(line.y) if v is not None), None)
        mark = h("i", class_=f"key c{n % COLOURS}{' dashed' if line.dashed else ''}")
        entries.append(h("span", mark, line.name, " ", h("b", "" if last is None else f"{last:.4g}"), class_="entry"))
    return entries


def axes(x: Scale, y: Scale) -> list[Markup]:
    marks = []
    for value in ticks(y.low, y.high):
        marks.append(h("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        marks.append(h("text", f"{value:.6g}", x=LEFT - 6, y=y(value) + 4, class_="tick", text_anchor="end"))
    for value in ticks(x.low, x.high):
        if value == int(value):
            marks.append(h("text", f"{int(value)}", x=x(value), y=HEIGHT - 6, class_="tick", text_anchor="middle"))
    return marks


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between the two: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(n * step, 12) + 0.0 for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def padded(low: float, high: float) -> tuple[float, float]:
    """Some room above and below, more if all values are one."""
    size = max(abs(low), abs(high))
    room = (high - low) * 0.05 if high - low > 1e-9 * size else 0.05 * size or 1
    return low - room, high + room
