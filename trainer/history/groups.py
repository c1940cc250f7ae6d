"""What was drawn in an iteration: the candidates of each prompt, and the pictures of fixed prompts."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..store.facts import finite
from ..store.reader import Reader
from .picture import inside, shown
from .projection import project


@dataclass(frozen=True)
class Index:
    first: int | None  # iterations with candidates
    last: int | None
    tiles: list[int]  # iterations with stored pictures
    evaluations: list[int]
    gone: int  # iterations whose pictures are no longer kept


def index(store: Reader) -> Index:
    return Index(*store.span(), store.pictured(), store.evaluations(), store.all_gone())


def groups(store: Reader, iteration: int, *, geometric: bool = True) -> list[dict[str, Any]]:
    """The prompts of one iteration with their candidates, as JSON takes it; empty if it is not stored.

    Seeds are text: they have 63 bits, and JavaScript's numbers hold 53.

    `geometric` adds the candidates' distances, and the points they make in a plane.
    """
    candidates, gone = _candidates(store, iteration), store.gone(iteration)
    return [
        {
            "slot": slot,
            "prompt": prompt,
            "seed": str(seed),
            "base": exists(store.folder, base),
            "gone": gone,
            "candidates": candidates[slot],
            **(geometry(distances, len(candidates[slot])) if geometric else {}),
        }
        for slot, prompt, seed, base, distances in store.groups(iteration)
    ]


def _candidates(store: Reader, iteration: int) -> dict[int, list[dict[str, Any]]]:
    """By slot."""
    scores: dict[tuple[int, int], dict[str, float | None]] = defaultdict(dict)
    for slot, candidate, reward, value in store.scores(iteration):
        scores[slot, candidate][reward] = finite(value)
    found = defaultdict(list)
    for slot, candidate, advantage, anchor, tile in store.candidates(iteration):
        found[slot].append(
            {
                "candidate": candidate,
                "advantage": finite(advantage),
                "anchor": bool(anchor),
                "tile": exists(store.folder, tile),
                "scores": scores[slot, candidate],
            }
        )
    return found


def geometry(raw: object, size: int) -> dict[str, Any]:
    """Stored distances (float32, little-endian, [G * G]) as a matrix, and where they put the candidates.

    All three are None if the store has none, or others than for `size` candidates.
    """
    if not isinstance(raw, bytes) or size == 0 or len(raw) != 4 * size * size:
        return {"distances": None, "points": None, "explained": None}
    matrix = np.frombuffer(raw, "<f4").reshape(size, size)
    plane = project(matrix)
    return {
        "distances": [[finite(v) for v in row] for row in matrix.tolist()],
        "points": plane and plane.points.tolist(),
        "explained": plane and plane.explained.tolist(),
    }


def evaluation(store: Reader, iteration: int) -> list[dict[str, Any]]:
    """The pictures of fixed prompts and seeds that were drawn after `iteration` iterations; empty if none were."""
    scores: dict[int, dict[str, float | None]] = defaultdict(dict)
    for number, reward, value in store.evaluation_scores(iteration):
        scores[number][reward] = finite(value)
    return [
        {"number": number, "prompt": prompt, "seed": str(seed), "scores": scores[number]}
        for number, prompt, seed in store.evaluation(iteration)
    ]


def candidate_tile(store: Reader, iteration: int, slot: int, candidate: int) -> Path | None:
    return shown(inside(store.folder, store.candidate_tile(iteration, slot, candidate)))


def base_tile(store: Reader, iteration: int, slot: int) -> Path | None:
    """The picture of the base noise itself."""
    return shown(inside(store.folder, store.base_tile(iteration, slot)))


def evaluation_tile(store: Reader, iteration: int, number: int) -> Path | None:
    return shown(inside(store.folder, store.evaluation_tile(iteration, number)))


def exists(folder: Path, relative: object) -> bool:
    return inside(folder, relative) is not None
