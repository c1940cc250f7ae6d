"""Contact sheets."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .metrics import to_pictures

GAP = 6  # pixels
LINE = 16  # pixels of a line of text
PAPER, INK = (255, 255, 255), (30, 30, 30)


def before_after(
    before: Tensor, after: Tensor, captions: Sequence[str], columns: int = 4, edge: int = 128
) -> Image.Image:
    """Pairs of pictures, before on the left, each pair under its caption.

    Args:
        before, after: [N, 3, H, W] in [0, 1].
        captions: N texts, cut to the width of their pair.
        columns: pairs in a row.
        edge: longest edge of a picture on the sheet, pixels.
    """
    left, right = ([_fit(p, edge) for p in to_pictures(images)] for images in (before, after))
    width, height = left[0].size
    cell = (2 * width + 3 * GAP, height + LINE + GAP)
    rows = -(-len(left) // columns)
    header = LINE + GAP
    sheet = Image.new("RGB", (columns * cell[0], header + rows * cell[1] + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column in range(min(columns, len(left))):
        x = column * cell[0] + GAP
        pen.text((x, GAP / 2), "before", INK, font)
        pen.text((x + width + GAP, GAP / 2), "after", INK, font)
    for n, caption in enumerate(captions):
        x, y = (n % columns) * cell[0] + GAP, header + (n // columns) * cell[1]
        pen.text((x, y), _cut(caption, pen, font, 2 * width + GAP), INK, font)
        sheet.paste(left[n], (x, y + LINE))
        sheet.paste(right[n], (x + width + GAP, y + LINE))
    return sheet


def _fit(picture: Image.Image, edge: int) -> Image.Image:
    scale = edge / max(picture.size)
    sampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), sampling)


def _cut(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont, width: float) -> str:
    while pen.textlength(text, font) > width:
        text = text[:-2].rstrip() + "…"
    return text
