"""The optimiser step, the warm-up and the average of the weights, against the equations written out."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from trainer.stages.update import Ema, GradientHistory, effective_step, make_optimizer, step_optimizer, warmed_up


def copies(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [t.detach().clone() for t in [*weights, *(v for s in optimizer.state.values() for v in s.values())]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])  # the norm of 1e30 overflows float32
def test_a_gradient_that_is_not_finite_leaves_weights_and_optimizer_as_they_were(bad):
    weights = [nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(2))]
    optimizer = make_optimizer(weights, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    history = GradientHistory()

    def update(value: float) -> tuple[float, bool]:
        weights[0].grad, weights[1].grad = torch.ones(3, 3), torch.tensor([1.0, value])
        return step_optimizer(optimizer, history, max_ratio=4.0, lr=1e-2)

    assert update(1.0)[1]
    before, remembered = copies(weights, optimizer), deepcopy(history)
    norm, applied = update(bad)
    assert not applied
    assert not math.isfinite(norm)
    after = copies(weights, optimizer)
    assert len(after) == 2 + 2 * 3  # exp_avg, exp_avg_sq and step of each
    assert all(torch.equal(now, then) for now, then in zip(after, before, strict=True))
    assert history == remembered
    assert all(w.grad is None for w in weights)  # nothing of it is left for the next update
    assert update(1.0)[1]
    assert not torch.equal(weights[0], before[0])


@pytest.mark.parametrize(("max_ratio", "length"), [(2.0, 2.0), (100.0, 5.0)])
@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_a_step_has_the_gradients_length_up_to_the_limit_times_the_learning_rate(max_ratio, length, loss_scale):
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([0.0, 3.0]) * loss_scale, torch.tensor([4.0]) * loss_scale
    usual = [0.5, *[1.0] * 5, 7.0, 8.0]  # of median 1; the gradient's norm is 5
    history, sgd = GradientHistory(exponent=0, norms=usual), torch.optim.SGD(weights, lr=123.0)
    norm, applied = step_optimizer(sgd, history, max_ratio=max_ratio, lr=0.1, loss_scale=loss_scale)
    assert applied
    assert norm == pytest.approx(5)
    expected = [0.0, -0.1 * length * 0.6, -0.1 * length * 0.8]
    assert [v for w in weights for v in w.tolist()] == pytest.approx(expected, abs=1e-6)
    assert all(w.grad is None for w in weights)
    assert history.norms == [*usual, pytest.approx(5)]


def test_the_usual_norm_is_the_median_of_the_last_fifty_and_unknown_before_eight():
    history = GradientHistory()
    for n in range(1, 8):
        history.add(float(n), 1)
        assert history.limit(2.0) == math.inf
    history.add(8.0, 1)
    assert history.limit(2.0) == 9.0
    for n in range(9, 101):
        history.add(float(n), 1)
    assert history.norms == list(range(51, 101))
    assert history.limit(1.0) == 75.5


def walked(size: float, updates: int = 100) -> torch.Tensor:
    """How far AdamW moves two numbers in learning rates: one of a true gradient, one of the rounding beside it.

    `size` is the gradient's. A key's shift, which softmax cancels, has such a gradient: 1e-7 of its neighbours', of
    any sign.
    """
    weight, history, signs = nn.Parameter(torch.zeros(2)), GradientHistory(), torch.Generator().manual_seed(0)
    optimizer = make_optimizer([weight], lr=1.0, betas=(0.9, 0.999), weight_decay=0.0)
    for _ in range(updates):
        before = weight.detach().clone()
        rounding = 1e-7 * torch.randn((), generator=signs).item()
        weight.grad = size * torch.tensor([1.0, rounding])
        step_optimizer(optimizer, history, max_ratio=4.0, lr=1.0)
    return (weight.detach() - before).abs()


@pytest.mark.parametrize("size", [1e-10, 1e-8, 1.0, 1e4])
def test_a_true_gradient_of_any_size_is_followed_and_rounding_is_not(size):
    true, rounding = walked(size).tolist()
    assert true == pytest.approx(1, rel=1e-3)
    assert rounding < 0.05


def test_a_gradients_unit_is_a_power_of_two_and_that_of_the_first_update():
    history = GradientHistory()
    history.add(0.0, 100)  # of a LoRA that has no effect
    assert history.exponent is None
    history.add(3e-7, 100)
    assert 0.7e-3 < 3e-7 / 10 * 2**history.exponent < 1.5e-3  # root mean square
    first = history.exponent
    history.add(5.0, 100)
    assert history.exponent == first


def test_adamw_is_the_equation_written_out():
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer([weight], lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    w, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate((0.3, -0.2, 0.5), 1):
        weight.grad = torch.tensor([g])
        step_optimizer(optimizer, GradientHistory(exponent=0), max_ratio=4.0, lr=0.1)
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


def test_an_effective_step_is_one_where_gradients_agree_and_small_where_they_are_noise():
    """Of mere noise AdamW's mean of gradients keeps (1 - beta1) / (1 + beta1) of their variance."""
    generator = torch.Generator().manual_seed(0)
    steady, noise = (torch.nn.Parameter(torch.zeros(4000)) for _ in range(2))
    optimizers = [make_optimizer([p], lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0) for p in (steady, noise)]
    assert effective_step(optimizers[0]).item() == 0  # none was taken yet
    for update in range(300):
        steady.grad = torch.full((4000,), 0.5)
        noise.grad = torch.randn(4000, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
        if update == 0:
            assert [effective_step(o).item() for o in optimizers] == pytest.approx([1, 1], rel=1e-4)
    assert effective_step(optimizers[0]).item() == pytest.approx(1, rel=1e-4)
    assert effective_step(optimizers[1]).item() == pytest.approx((0.1 / 1.9) ** 0.5, rel=0.05)
    both = make_optimizer([steady, noise], lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    both.state = {p: state for optimizer in optimizers for p, state in optimizer.state.items()}
    assert effective_step(both).item() == pytest.approx(
        ((1 + effective_step(optimizers[1]).item() ** 2) / 2) ** 0.5, rel=1e-3
    )
    before = noise.detach().clone()
    optimizers[1].step()
    taken = (noise.detach() - before).square().mean().sqrt().item() / 1e-3
    assert effective_step(optimizers[1]).item() == pytest.approx(taken, rel=1e-4)
