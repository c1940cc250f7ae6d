"""What a data set of captioned pictures is to those who train on it."""

from typing import Protocol

import numpy as np
import torch

SIZE = 64  # pixels


class Pictures(Protocol):
    captions: list[str]  # what there is to draw: a row each
    held_out: list[bool]  # the rows that the autoencoder never sees

    def draw(self, rows: list[int], rng: np.random.Generator, *, steady: bool = False) -> torch.Tensor:
        """One random picture of each row: images [N, 3, 64, 64] in [0, 1]; `steady`: as the finished model draws."""

    def told(self, rows: list[int], rng: np.random.Generator, *, last: bool) -> list[int]:
        """The rows of the captions that pictures of `rows` come with; `last`: in the last part of the training."""

    def related(self, rows: list[int], rng: np.random.Generator) -> list[int]:
        """For each row another one, hard to tell from it."""


def sample(
    data: Pictures, n: int, rng: np.random.Generator, *, unseen: bool | None = None
) -> tuple[list[int], torch.Tensor]:
    """`n` distinct rows and their images; `unseen` picks the held-out ones, or only the others."""
    pool = [row for row, held_out in enumerate(data.held_out) if unseen is None or held_out == unseen]
    chosen = [pool[i] for i in rng.choice(len(pool), n, replace=False)]
    return chosen, data.draw(chosen, rng)
