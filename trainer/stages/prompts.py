"""Which prompts an iteration trains on."""

import numpy as np
from numpy.typing import NDArray


def prompt_order(count: int, seed: int, iteration: int, per_iteration: int) -> list[int]:
    """The prompts of one iteration, as indices: every prompt once per epoch, each epoch shuffled anew.

    A function of the position alone, so a resumed run goes on where it was.
    """
    first = iteration * per_iteration
    order: dict[int, NDArray[np.int64]] = {}
    chosen = []
    for position in range(first, first + per_iteration):
        epoch, place = divmod(position, count)
        if epoch not in order:
            order[epoch] = np.random.default_rng([seed, epoch]).permutation(count)
        chosen.append(int(order[epoch][place]))
    return chosen
