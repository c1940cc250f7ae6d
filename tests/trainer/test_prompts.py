"""The order of the prompts: epochs, shuffles, and going on where a run was."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.stages.prompts import prompt_order


def stream(count: int, seed: int, iterations: int, per_iteration: int) -> list[int]:
    return [p for i in range(iterations) for p in prompt_order(count, seed, i, per_iteration)]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 9), st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 8))
def test_every_prompt_comes_once_per_epoch_whatever_the_batch(count, seed, per_iteration, iterations):
    """Epochs run across the borders of iterations; an iteration larger than an epoch holds several."""
    order = stream(count, seed, iterations, per_iteration)
    assert len(order) == iterations * per_iteration
    for start in range(0, len(order), count):
        epoch = order[start : start + count]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(count))


def test_the_order_does_not_depend_on_how_it_is_cut_into_iterations():
    assert stream(7, 3, 12, 1) == stream(7, 3, 4, 3) == stream(7, 3, 1, 12)


def test_each_epoch_and_each_seed_is_shuffled_anew():
    order = stream(10, 0, 3, 10)
    epochs = [tuple(order[start : start + 10]) for start in (0, 10, 20)]
    assert len({*epochs, tuple(range(10))}) == 4
    assert stream(10, 1, 1, 10) != list(epochs[0])


def test_every_prompt_is_first_equally_often():
    first = Counter(prompt_order(4, seed, 0, 1)[0] for seed in range(2000))
    error = (2000 * 1 / 4 * 3 / 4) ** 0.5
    assert all(abs(first[p] - 500) < 4 * error for p in range(4))
