"""The optimiser step, the warm-up and the average of the weights, against the equations written out."""

import math

import pytest
import torch
from torch import nn

from trainer.update import Ema, make_optimizer, step_optimizer, warmed_up


def copies(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [t.detach().clone() for t in [*weights, *(v for s in optimizer.state.values() for v in s.values())]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])  # the norm of 1e30 overflows float32
def test_a_gradient_that_is_not_finite_leaves_weights_and_optimizer_as_they_were(bad):
    weights = [nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(2))]
    optimizer = make_optimizer(weights, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)

    def update(value: float) -> tuple[float, bool]:
        weights[0].grad, weights[1].grad = torch.ones(3, 3), torch.tensor([1.0, value])
        return step_optimizer(optimizer, 1.0, 1e-2)

    assert update(1.0)[1]
    before = copies(weights, optimizer)
    norm, applied = update(bad)
    assert not applied
    assert not math.isfinite(norm)
    after = copies(weights, optimizer)
    assert len(after) == 2 + 2 * 3  # exp_avg, exp_avg_sq and step of each
    assert all(torch.equal(now, then) for now, then in zip(after, before, strict=True))
    assert all(w.grad is None for w in weights)  # nothing of it is left for the next update
    assert update(1.0)[1]
    assert not torch.equal(weights[0], before[0])


@pytest.mark.parametrize(("max_norm", "length"), [(1.0, 1.0), (100.0, 5.0)])
def test_a_step_has_the_gradients_length_up_to_the_limit_times_the_learning_rate(max_norm, length):
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([0.0, 3.0]), torch.tensor([4.0])  # together of norm 5
    norm, applied = step_optimizer(torch.optim.SGD(weights, lr=123.0), max_norm, 0.1)
    assert applied
    assert norm == pytest.approx(5)
    expected = [0.0, -0.1 * length * 0.6, -0.1 * length * 0.8]
    assert [v for w in weights for v in w.tolist()] == pytest.approx(expected, abs=1e-6)
    assert all(w.grad is None for w in weights)


def test_adamw_is_the_equation_written_out():
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer([weight], lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    w, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate((0.3, -0.2, 0.5), 1):
        weight.grad = torch.tensor([g])
        step_optimizer(optimizer, 10.0, 0.1)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        w = w * (1 - 0.1 * 0.5) - 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.9**t)) + 1e-8)
        assert weight.item() == pytest.approx(w, abs=1e-6)


def test_warm_up_rises_linearly_and_its_first_update_already_learns():
    assert [warmed_up(0.4, n, 4) for n in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert [warmed_up(0.4, n, 0) for n in range(2)] == [0.4, 0.4]


def test_average_follows_the_weights_at_its_rising_decay():
    weights = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([[0.5]])}
    ema, expected = Ema(weights, 0.3), {"a": [1.0, -2.0], "b": [0.5]}
    for n in range(5):
        for w in weights.values():
            w += n + 1
        ema.update(weights)
        decay = min(0.3, (1 + n) / (10 + n))  # .1, .18, .25, .3, .3
        for name, values in expected.items():
            now = weights[name].flatten().tolist()
            expected[name] = [decay * e + (1 - decay) * w for e, w in zip(values, now, strict=True)]
            assert ema.shadow[name].flatten().tolist() == pytest.approx(expected[name], abs=1e-5)
    assert ema.updates == 5


def test_an_average_shares_no_memory_with_the_weights():
    weights = {"a": nn.Parameter(torch.ones(2))}
    ema = Ema(weights, 0.5)
    with torch.no_grad():
        weights["a"] += 1
    assert ema.shadow["a"].tolist() == [1, 1]


def test_an_average_without_decay_keeps_nothing():
    weights = {"a": nn.Parameter(torch.ones(2))}
    ema = Ema(weights, 0.0)
    ema.update(weights)
    assert ema.shadow == {}


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="EMA decay must be at least 0 and below 1"):
        Ema({}, decay)
