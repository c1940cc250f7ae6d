"""A run ends when its rewards have stopped rising, and not before."""

import pytest
import torch

from trainer.events import IterationDone, Skipped
from trainer.training.early_stop import EarlyStop


def done(iteration, **rewards):
    metrics = {f"reward/{name}": value for name, value in rewards.items()}
    nothing = torch.zeros(0)
    return IterationDone(iteration, metrics, [], [], {}, nothing, nothing, nothing)


def iterations_until_stop(stop, values, limit=500):
    for n, value in enumerate(values):
        stop(done(n, a=value))
        if stop.reasons:
            return n + 1
    return None


def early_stop(weights, patience):
    reasons = []
    stop = EarlyStop(weights, patience, reasons.append)
    stop.reasons = reasons
    return stop


@pytest.mark.parametrize("weight", [2.0, -0.5])
def test_it_stops_after_patience_iterations_without_a_new_best_in_the_direction_of_the_weight(weight):
    sign = 1 if weight > 0 else -1
    assert iterations_until_stop(early_stop({"a": weight}, 5), [sign * n for n in range(100)]) is None
    assert iterations_until_stop(early_stop({"a": weight}, 5), [-sign * n for n in range(100)]) == 6


def test_noise_on_a_rising_reward_does_not_stop_it():
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0)).tolist()
    rising = [0.02 * n + 0.5 * e for n, e in enumerate(noise)]
    assert iterations_until_stop(early_stop({"a": 1.0}, 20), rising) is None
    flat = [10.0] * 30 + [0.0] * 40
    assert iterations_until_stop(early_stop({"a": 1.0}, 20), flat) == 21


def test_one_of_two_rewards_that_rises_is_enough_and_others_do_not_count():
    stop = early_stop({"a": 1.0, "b": 1.0}, 3)
    for n in range(10):
        stop(done(n, a=-n, b=n, held_out=-n))
        stop(Skipped(n, "no reason"))
    assert not stop.reasons


def test_patience_zero_never_stops():
    assert iterations_until_stop(early_stop({"a": 1.0}, 0), [0.0] * 50) is None
