"""Candidates as points in a plane."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Projection:
    points: NDArray[np.float64]  # [G, 2]
    explained: NDArray[np.float64]  # [2], shares of the whole variance


def project(distances: NDArray[np.float64]) -> Projection | None:
    """The two principal components of the candidates, from their distances alone (classical scaling, Torgerson 1952).

    For Euclidean distances the points are those of a PCA of the latents, up to the axes' signs. An axis points to where
    its largest coordinate lies. None if a distance is not finite.

    Args:
        distances: [G, G], symmetric.
    """
    if not np.isfinite(distances).all():
        return None
    size = len(distances)
    centre = np.eye(size) - 1 / size
    gram = -0.5 * centre @ distances.astype(np.float64) ** 2 @ centre  # [G, G]: float64, squares of close distances
    variances, axes = np.linalg.eigh(gram)  # ascending
    variances, axes = variances[::-1].clip(min=0), axes[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(size)])
    points = np.zeros((size, 2))
    points[:, : min(size, 2)] = (axes * np.sqrt(variances))[:, :2]
    total = variances.sum()
    explained = np.zeros(2)
    explained[: min(size, 2)] = variances[:2] / total if total > 0 else 0
    return Projection(points, explained)
