"""A taste in words: nearer to the phrases that are wanted than to those that are not."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import brief
from .clip import ClipEncoder
from .clip_kinds import load_any
from .errors import RewardError
from .preprocess import Preprocess


class TextPreference:
    """Weighted mean cosine to the wanted phrases, minus that to the unwanted ones; in [-2, 2]. Prompts are ignored."""

    def __init__(
        self,
        encoder: ClipEncoder,
        preprocess: Preprocess,
        wanted: Sequence[tuple[str, float]],
        unwanted: Sequence[tuple[str, float]],
    ):
        self.encoder, self.preprocess, self.wanted, self.unwanted = encoder, preprocess, wanted, unwanted

    def to(self, device: str | torch.device) -> "TextPreference":
        self.encoder.to(device)
        return self

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        direction = self._mean(self.wanted) - self._mean(self.unwanted)
        return (self.encoder.images(self.preprocess(images)) @ direction).to(images.device)

    def _mean(self, phrases: Sequence[tuple[str, float]]) -> Tensor | float:
        """[D], or 0 of no phrases."""
        if not phrases:
            return 0.0
        vectors = self.encoder.texts([phrase for phrase, _ in phrases])
        weights = vectors.new_tensor([weight for _, weight in phrases])
        return weights @ vectors / weights.sum()


def text_preference(
    device: str, path: str = "", wanted: Sequence[str] = (), unwanted: Sequence[str] = (), dtype: str = "auto"
) -> TextPreference:
    """`wanted` and `unwanted`: phrases such as "sharp" or, with a weight, "sharp:2". `path`: the CLIP."""
    liked, disliked = phrases("wanted", wanted), phrases("unwanted", unwanted)
    if not liked and not disliked:
        raise RewardError("text preference: wanted and unwanted are both empty, give at least one phrase")
    return TextPreference(*load_any(device, path, dtype), liked, disliked)


def phrases(name: str, values: object) -> list[tuple[str, float]]:
    """Phrases and their weights, 1 if none is written. Raises RewardError on anything that is no list of them."""
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise RewardError(f"text preference: {name} must be a list of phrases, got {brief(values)}")
    found = []
    for value in values:
        text, weight = value.strip(), "1"
        if ending := re.search(r":\s*([-+.\d]+)\Z", text):
            text, weight = text[: ending.start()], ending[1]
        try:
            number = float(weight)
        except ValueError:
            told = f"{brief(weight)} in {brief(value)} is no number"
            raise RewardError(f"text preference: {told}, write 'phrase:2'") from None
        if not text.strip() or not number > 0:
            raise RewardError(
                f"text preference: {brief(value)} must be a phrase, or a phrase and a weight above 0 as in 'sharp:2'"
            )
        found.append((text.strip(), number))
    return found
