"""Thinned curves against their definition, and points in a plane against a principal component analysis."""

import math
import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import TRAINED, Run, distances, write

from trainer.history import curves, groups, reading
from trainer.history.curves import bucket_size
from trainer.history.groups import geometry
from trainer.history.projection import project
from trainer.store.database import DATABASE


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """10,000 iterations; some values, and all of 4,000 to 4,099, are missing, others are not finite."""
    run = Run(iterations=10_000, planned=10_000, candidates=False, tiles_every=0, missing=range(4000, 4100))
    folder = write(tmp_path_factory.mktemp("runs") / "long", run)
    database = sqlite3.connect(folder / DATABASE)
    with database:
        database.execute("UPDATE metrics SET value = 9e999 WHERE name = 'loss' AND iteration % 7 = 3")
        database.execute("UPDATE metrics SET value = -9e999 WHERE name = 'loss' AND iteration % 7 = 4")
        database.execute("UPDATE metrics SET value = NULL WHERE name = 'loss' AND iteration BETWEEN 8000 AND 8064")
        database.execute("DELETE FROM metrics WHERE name = 'strength' AND iteration > 100")
    database.close()
    return folder


def stored(folder, name) -> dict[int, float | None]:
    database = sqlite3.connect(folder / DATABASE)
    rows = dict(database.execute("SELECT iteration, value FROM metrics WHERE name = ?", (name,)))
    database.close()
    return rows


def thin(folder, **options):
    with reading(folder) as store:
        return curves(store, **options)


def slowly(values, first, last, step):
    """(x, mean, low, high) by definition: a value at a time, each put into the bucket that it falls in."""
    buckets = {n: [] for n in range(last // step + 1) if (n + 1) * step > first}
    for iteration, value in values.items():
        if first <= iteration <= last and value is not None and math.isfinite(value):
            buckets[math.floor(iteration / step)].append(value)
    rows = [
        (n * step, math.fsum(b) / len(b), min(b), max(b)) if b else (n * step, None, None, None)
        for n, b in sorted(buckets.items())
    ]
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("name", ["loss", "strength", "grad_norm", f"reward/{TRAINED}"])
@pytest.mark.parametrize(("points", "first", "last"), [(800, 0, 9999), (37, 0, 9999), (100, 3997, 8333), (1, 5, 9000)])
def test_a_thinned_curve_is_mean_lowest_and_highest_of_its_buckets(long, name, points, first, last):
    found = thin(long, names=[name], points=points, first=first, last=last)[name]
    x, mean, low, high = slowly(stored(long, name), first, last, found.step)
    assert found.step > 1
    assert len(found.x) <= points
    assert (found.x, found.low, found.high) == (x, low, high)
    assert [m is None for m in found.mean] == [m is None for m in mean]
    there = [(a, b) for a, b in zip(found.mean, mean, strict=True) if b is not None]
    assert all(math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-15) for a, b in there)


def test_every_iteration_is_shown_where_there_is_room(long):
    found = thin(long, names=["loss"], points=800, first=3990, last=4110)["loss"]
    values = stored(long, "loss")
    assert found.step == 1
    assert found.x == list(range(3990, 4111))
    assert (found.low, found.high) == (None, None)
    assert set(found.to_dict()) == {"x", "mean", "step"}
    expected = [values.get(i) for i in found.x]
    assert found.mean == [v if v is not None and math.isfinite(v) else None for v in expected]
    assert found.mean[10:110] == [None] * 100  # a gap stays one


def test_all_curves_by_default_and_unknown_names_are_left_out(long):
    everything = thin(long)
    assert len(everything) == 20
    assert {c.step for c in everything.values()} == {16}
    assert list(thin(long, names=["loss", "nothing", "loss"])) == ["loss"]
    assert thin(long, names=[]) == {}


def test_a_run_that_grows_keeps_its_buckets(long):
    part, whole = (thin(long, names=["loss"], last=last)["loss"] for last in (9989, 9999))
    assert part.x == whole.x
    assert part.mean[:-1] == whole.mean[:-1]


def test_past_the_end_and_before_the_first_iteration_there_is_nothing(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=5))
    assert thin(folder, names=["loss"], first=7)["loss"].x == []
    assert thin(folder, names=["loss"], first=3, last=10**9)["loss"].x == [3, 4]
    empty = write(tmp_path / "empty", Run(iterations=0, candidates=False))
    assert thin(empty) == {}


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 5000))
def test_the_step_is_the_smallest_power_of_two_that_fits(first, length, points):
    step, last = bucket_size(first, first + length, points), first + length
    count = lambda s: len({first // s, last // s} | set(range(first // s, last // s)))  # noqa: E731
    assert math.log2(step).is_integer()
    assert count(step) <= points or first // step == last // step
    assert step == 1 or count(step // 2) > points


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 20), st.integers(1, 30))
def test_points_are_the_principal_components_of_the_latents(seed, size, dimensions):
    random = np.random.default_rng(seed)
    latents = random.normal(size=(size, dimensions)) * np.linspace(2, 0.5, dimensions)
    found = project(distances(latents) * math.sqrt(dimensions))  # Euclidean, as root mean squares times sqrt(D)
    left, spread, _ = np.linalg.svd(latents - latents.mean(0), full_matrices=False)
    expected = (left * spread)[:, :2]  # [G, <= 2]
    for n in range(min(2, expected.shape[1])):
        sign = np.sign(found.points[:, n] @ expected[:, n])
        np.testing.assert_allclose(found.points[:, n], sign * expected[:, n], atol=1e-6)
        assert found.points[np.abs(found.points[:, n]).argmax(), n] > -1e-6
    shares = np.append(spread**2 / (spread**2).sum(), [0.0])[:2]
    np.testing.assert_allclose(found.explained, shares, atol=1e-6)


def test_equal_candidates_are_one_point_and_a_missing_distance_is_none():
    same = project(np.zeros((4, 4)))
    assert not same.points.any()
    assert not same.explained.any()
    assert project(np.full((3, 3), np.nan)) is None


def test_distances_that_do_not_fit_the_group_are_left_out(tmp_path):
    nothing = {"distances": None, "points": None, "explained": None}
    for raw, size in ((None, 3), (b"", 0), (b"123", 3), ("text", 2), (np.zeros(4, "<f4").tobytes(), 3)):
        assert geometry(raw, size) == nothing
    broken = np.array([[0, np.inf], [np.inf, 0]], "<f4")
    assert geometry(broken.tobytes(), 2) == {**nothing, "distances": [[0.0, None], [None, 0.0]]}
    folder = write(tmp_path / "run", Run(iterations=1))
    with reading(folder) as store:
        group = groups(store, 0)[1]
    matrix = np.array(group["distances"])
    assert matrix.shape == (12, 12)
    np.testing.assert_allclose(matrix, matrix.T)
    assert len(group["points"]) == 12
    assert 0.9 < sum(group["explained"]) <= 1 + 1e-9  # the artificial latents lie nearly in a plane
