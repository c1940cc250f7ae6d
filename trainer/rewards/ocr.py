"""Text rendering: does the text that a prompt puts in quotes stand in the picture?"""

import re
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import RewardError

# Single quotes do not count: they are apostrophes far more often ("the dog's bowl, the cat's bed").
QUOTED = re.compile(r'["“”„«»「]([^"“”„«»「」]*)["“”«»」]')
SETTINGS = {
    "Global.use_cls": False,  # no search for text that stands on its head
    "Global.log_level": "error",  # "no text found" is a score, not a warning
    "Det.limit_side_len": 192,  # pixels: smaller pictures are enlarged to this, larger ones read as they are
}


class OcrReward:
    """Flow-GRPO's text rendering reward (arXiv 2505.05470), with RapidOCR as the reader.

    1 - min(d, n) / n, where n is the length of the prompt's quoted text and d the edit distance from what is read to
    it; d = 0 where the text is part of what is read. Spaces and upper case do not count. From 0 to 1.
    """

    def __init__(self):
        try:
            from rapidocr import RapidOCR  # the models are in its package: nothing is downloaded
        except ImportError as error:
            raise RewardError(
                f"OCR reward: {error.name} is not installed, run: {sys.executable} -m pip install "
                '"rapidocr>=3.9" onnxruntime'
            ) from error
        self.reader = RapidOCR(params=SETTINGS)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [N]. Raises RewardError for a prompt without quoted text."""
        targets = [quoted(prompt) for prompt in prompts]
        pixels = (images * 255).round().to(torch.uint8).flip(1).permute(0, 2, 3, 1).cpu().numpy()  # BGR
        scores = [similarity(self.read(p), t) for p, t in zip(pixels, targets, strict=True)]
        return torch.tensor(scores, device=images.device)

    def read(self, pixels: object) -> str:
        """All text in a BGR picture [H, W, 3] of 8 bits, line by line."""
        return "".join(self.reader(pixels).txts or ())


def quoted(prompt: str) -> str:
    """The first part of a prompt that stands in double quotes of any kind.

    Raises:
        RewardError: there is none, or nothing is in it.
    """
    found = QUOTED.search(prompt)
    if not found or not plain(found[1]):
        shown = prompt if len(prompt) <= 80 else prompt[:80] + "…"
        raise RewardError(
            f'OCR reward: the prompt {shown!r} has no text in double quotes to look for, as in: a sign that says "OPEN"'
        )
    return found[1]


def similarity(read: str, target: str) -> float:
    """Of two texts, 0 to 1: see OcrReward."""
    read, target = plain(read), plain(target)
    if target in read:
        return 1.0
    return 1 - min(levenshtein(read, target), len(target)) / len(target)


def plain(text: str) -> str:
    return "".join(text.split()).lower()


def levenshtein(a: str, b: str) -> int:
    """The fewest insertions, deletions and replacements of a character that make b of a."""
    row = list(range(len(b) + 1))  # distances from a[:i] to every b[:j]
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
