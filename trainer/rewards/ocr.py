"""Text rendering: does the text that a prompt puts in quotes stand in the picture?"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import RewardError
from .quoted import plain, quoted

SETTINGS = {
    "Global.use_cls": False,  # no search for text that stands on its head
    "Global.log_level": "error",  # "no text found" is a score, not a warning
    "Det.limit_side_len": 192,  # pixels: smaller pictures are enlarged to this, larger ones read as they are
}


class OcrReward:
    """Flow-GRPO's text rendering reward (arXiv 2505.05470), with RapidOCR as the reader.

    1 - min(d, n) / n, where n is the length of the prompt's quoted text and d the edit distance from what is read to
    it; d = 0 if the text is part of what is read. Spaces and upper case do not count. From 0 to 1.
    """

    def __init__(self) -> None:
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


def similarity(read: str, target: str) -> float:
    """Of two texts, 0 to 1: see OcrReward."""
    read, target = plain(read), plain(target)
    if target in read:
        return 1.0
    return 1 - min(levenshtein(read, target), len(target)) / len(target)


def levenshtein(a: str, b: str) -> int:
    """The fewest insertions, deletions and replacements of a character that make b of a."""
    row = list(range(len(b) + 1))  # distances from a[:i] to every b[:j]
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
