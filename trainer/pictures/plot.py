"""Curves of a run as a picture, one chart for each series."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRID, RAW, SMOOTH = (255, 255, 255), (40, 40, 40), (228, 228, 228), (170, 195, 225), (35, 95, 170)
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 26, 22  # pixels around a chart's axes
TICKS = 4
SMOOTHING = 0.8  # of the moving average that is drawn over the values

Series = Sequence[tuple[int, float | None]]  # (iteration, value); None if there was none


def curves(series: Mapping[str, Series], width: int, height: int) -> Image.Image:
    """Charts below each other, each `width` x `height` pixels: the values pale, their moving average strong."""
    picture = Image.new("RGB", (width, height * len(series)), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for n, (name, values) in enumerate(series.items()):
        _chart(pen, font, name, [(i, v) for i, v in values if v is not None], (0, n * height, width, height))
    return picture


def moving_average(values: Sequence[float]) -> list[float]:
    averages: list[float] = []
    for value in values:
        averages.append(SMOOTHING * averages[-1] + (1 - SMOOTHING) * value if averages else value)
    return averages


def _chart(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    name: str,
    points: list[tuple[int, float]],
    box: tuple[int, int, int, int],
) -> None:
    x0, y0, width, height = box
    left, right, top, bottom = x0 + LEFT, x0 + width - RIGHT, y0 + TOP, y0 + height - BOTTOM
    if not points:
        pen.text((left, y0 + 6), f"{name}: no values yet", INK, font)
        return
    iterations, values = [i for i, _ in points], [v for _, v in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin
    last = max(iterations[-1], iterations[0] + 1)

    def place(i: int, v: float) -> tuple[float, float]:
        across = (i - iterations[0]) / (last - iterations[0])
        return left + across * (right - left), bottom - (v - low) / (high - low) * (bottom - top)

    averages = moving_average(values)
    pen.text((left, y0 + 6), f"{name}: {values[0]:.4g} at first, now {averages[-1]:.4g} (moving average)", INK, font)
    for tick in range(TICKS + 1):
        v = low + (high - low) * tick / TICKS
        _, y = place(iterations[0], v)
        pen.line((left, y, right, y), GRID)
        pen.text((left - 6, y), f"{v:.4g}", INK, font, anchor="rm")
        i = round(iterations[0] + (last - iterations[0]) * tick / TICKS)
        pen.text((place(i, low)[0], bottom + 5), str(i + 1), INK, font, anchor="ma")
    for line, colour, thickness in ((values, RAW, 1), (averages, SMOOTH, 2)):
        path = [place(i, v) for i, v in zip(iterations, line, strict=True)]
        if len(path) > 1:
            pen.line(path, colour, thickness)
        pen.ellipse([(path[-1][0] - 2, path[-1][1] - 2), (path[-1][0] + 2, path[-1][1] + 2)], fill=colour)
