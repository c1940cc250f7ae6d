"""Contact sheets."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .convert import to_pictures

GAP, BETWEEN = 6, 20  # pixels between pictures, and between those of different captions
LINE = 16  # pixels of a line of text
PAPER, INK, FAINT, MARK = (255, 255, 255), (30, 30, 30), (120, 120, 120), (222, 110, 30)
RIGHT, WRONG = (30, 140, 70), (200, 45, 45)


def before_after(before: Tensor, after: Tensor, captions: Sequence[str], columns: int = 4) -> Image.Image:
    """Pairs of pictures, before on the left, each pair under its caption: see `side_by_side`."""
    return side_by_side({"before": before, "after": after}, captions, columns)


def side_by_side(
    pictures: Mapping[str, Tensor],
    captions: Sequence[str],
    columns: int = 4,
    edge: int = 128,
    right: Mapping[str, Sequence[bool]] = MappingProxyType({}),
    title: str = "",
) -> Image.Image:
    """Pictures of the same captions beside each other, under their caption.

    Args:
        pictures: name of each column -> [N, 3, H, W] in [0, 1].
        captions: N texts, cut to the width of their pictures.
        columns: captions in a row.
        edge: longest edge of a picture on the sheet, pixels.
        right: of some columns, which pictures are as they should be: those have a green frame, the others a red one.
        title: a line above all.
    """
    drawn = {name: [_fit(p, edge) for p in to_pictures(images)] for name, images in pictures.items()}
    width, height = next(iter(drawn.values()))[0].size
    cell = (len(drawn) * (width + GAP) + BETWEEN, height + LINE + GAP)
    rows = -(-len(captions) // columns)
    above = LINE + GAP if title else 0
    header = above + LINE + GAP
    sheet = Image.new("RGB", (columns * cell[0], header + rows * cell[1] + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.text((GAP, GAP / 2), title, INK, ImageFont.load_default(14))
    for column in range(min(columns, len(captions))):
        for place, name in enumerate(drawn):
            pen.text((column * cell[0] + GAP + place * (width + GAP), above + GAP / 2), name, INK, font)
    for n, caption in enumerate(captions):
        x, y = (n % columns) * cell[0] + GAP, header + (n // columns) * cell[1]
        pen.text((x, y), _cut(caption, pen, font, cell[0] - BETWEEN - GAP), INK, font)
        for place, (name, its) in enumerate(drawn.items()):
            corner = (x + place * (width + GAP), y + LINE)
            sheet.paste(its[n], corner)
            if name in right:
                colour = RIGHT if right[name][n] else WRONG
                box = (corner[0] - 2, corner[1] - 2, corner[0] + width + 1, corner[1] + height + 1)
                pen.rectangle(box, outline=colour, width=3)
    return sheet


def contact_sheet(
    images: Tensor,
    prompts: Sequence[str],
    scores: Mapping[str, Tensor],
    advantages: Tensor,
    anchors: Tensor,
    columns: int = 6,
    edge: int = 192,
) -> Image.Image:
    """The candidates of P neighborhoods, a block for each prompt; rank, advantage and rewards under each picture.

    Args:
        images: [P * G, 3, H, W] in [0, 1].
        prompts: P texts.
        scores: [P, G] of each reward.
        advantages: A', [P, G]; rank 1 is the highest of its prompt.
        anchors: [P, G] bool; anchors get a frame.
        columns: pictures in a row.
        edge: longest edge of a picture on the sheet, pixels.
    """
    pictures = [_fit(p, edge) for p in to_pictures(images)]
    count, group_size = advantages.shape
    width, height = pictures[0].size
    cell = (width + GAP, height + GAP + LINE * (1 + len(scores)))
    block = LINE + GAP + cell[1] * -(-group_size // columns)
    sheet = Image.new("RGB", (min(columns, group_size) * cell[0] + GAP, count * block + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    ranks = advantages.argsort(1, descending=True).argsort(1) + 1
    for p, prompt in enumerate(prompts):
        pen.text((GAP, p * block + GAP / 2), _cut(prompt, pen, font, sheet.width - 2 * GAP), INK, font)
        for i in range(group_size):
            x, y = GAP + (i % columns) * cell[0], p * block + LINE + GAP + (i // columns) * cell[1]
            sheet.paste(pictures[p * group_size + i], (x, y))
            if anchors[p, i]:
                pen.rectangle((x - 2, y - 2, x + width + 1, y + height + 1), outline=MARK, width=2)
            lines = [f"#{ranks[p, i]}  A {advantages[p, i]:+.3f}"]
            lines += [f"{name} {values[p, i]:.4f}" for name, values in scores.items()]
            for n, line in enumerate(lines):
                text = _cut(line, pen, font, width)
                pen.text((x, y + height + 1 + n * LINE), text, INK if n == 0 else FAINT, font)
    return sheet


def image_tensor(picture: Image.Image) -> Tensor:
    """[1, H, W, 3] float32 in [0, 1], ComfyUI's IMAGE."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def _fit(picture: Image.Image, edge: int) -> Image.Image:
    scale = edge / max(picture.size)
    sampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), sampling)


def _cut(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> str:
    while pen.textlength(text, font) > width:
        text = text[:-2].rstrip() + "…"
    return text
