"""The self-test finds a model that does not compute in the update what it computed in the rollout."""

import pytest
import torch

from trainer.engine.state import new_state
from trainer.events import SelfTested
from trainer.settings.config_file import load_config
from trainer.training.loop import train
from trainer.training.prepare import prepare
from trainer.training.self_test import gradient_error, self_test


@pytest.fixture
def setup(config_file):
    return prepare(load_config(config_file(), ["run.micro_batch=3", "run.rollout_batch=3"]))


@pytest.fixture
def spoil(setup, monkeypatch):
    """Add something to the velocity; `extra` is called with it."""
    forward = setup.policy.network.forward

    def spoil(extra):
        def spoilt(**inputs):
            v = forward(**inputs)[0]
            return (v + extra(v),)

        monkeypatch.setattr(setup.policy.network, "forward", spoilt)

    return spoil


@pytest.mark.also_on_card
def test_a_healthy_model_passes_and_is_as_before(setup):
    before = {name: parameter.detach().clone() for name, parameter in setup.lora.items()}
    found = self_test(setup, 7)
    assert found == SelfTested(7, 0.0, 0.0, found.gradient_error, "")
    assert found.gradient_error < 0.01
    assert all(torch.equal(parameter, before[name]) for name, parameter in setup.lora.items())
    assert all(parameter.grad is None for parameter in setup.lora.values())


CAUSES = [
    (torch.randn_like, "other numbers at each call"),
    (lambda v: v.mean(0, keepdim=True), "depend on the candidates beside one"),
    (lambda v: float(torch.is_grad_enabled()), "otherwise with gradient"),
]


@pytest.mark.parametrize(("extra", "cause"), CAUSES, ids=[cause for _, cause in CAUSES])
@pytest.mark.also_on_card
def test_the_cause_is_named(setup, spoil, extra, cause):
    spoil(extra)
    found = self_test(setup, 0)
    assert found.velocity_error > 1e-2
    assert cause in found.cause
    assert cause in str(found)


@pytest.mark.also_on_card
def test_dropout_is_named(setup, spoil):
    spoil(torch.randn_like)
    setup.policy.network.train()
    assert "dropout" in self_test(setup, 0).cause


@pytest.mark.also_on_card
def test_what_is_within_the_tolerance_is_reported_without_a_cause(setup, spoil):
    spoil(lambda v: 1e-5 * torch.is_grad_enabled() * v)
    found = self_test(setup, 0)
    assert 0 < found.velocity_error < 1e-4
    assert found.cause == ""


def test_another_velocity_is_found_at_a_size_at_which_the_ratio_does_not_tell_it(config_file, monkeypatch):
    """A velocity 1 % larger with gradient. |rho - 1| falls with 1 / sqrt(D)."""
    size = ["sampling.width=512", "sampling.height=512", "run.micro_batch=2"]
    setup = prepare(load_config(config_file(), [*size, "grpo.temperature_mode='element-mean'"]))
    forward = setup.policy.network.forward

    def larger(**inputs):
        return (forward(**inputs)[0] * (1.01 if torch.is_grad_enabled() else 1),)

    monkeypatch.setattr(setup.policy.network, "forward", larger)
    found = self_test(setup, 0)
    assert found.ratio_error < 1e-3  # what is tolerated of a velocity
    assert found.velocity_error == pytest.approx(0.01, rel=1e-3)
    assert "otherwise with gradient" in found.cause


@pytest.mark.also_on_card
def test_another_velocity_at_the_last_step_alone_is_found(setup, spoil, monkeypatch):
    forward = setup.policy.network.forward
    last = setup.sigmas[-2].item()

    def spoilt(**inputs):
        late = torch.is_grad_enabled() and inputs["timestep"].max() <= last + 1e-6
        return (forward(**inputs)[0] * (1.1 if late else 1),)

    monkeypatch.setattr(setup.policy.network, "forward", spoilt)
    found = self_test(setup, 0)
    assert found.velocity_error == pytest.approx(0.1, rel=1e-4)
    assert "otherwise with gradient" in found.cause


@pytest.mark.also_on_card
def test_a_velocity_that_is_no_number_is_found(setup, spoil):
    spoil(lambda v: float("nan") if torch.is_grad_enabled() else 0.0)
    assert "otherwise with gradient" in self_test(setup, 0).cause


# ---- the gradient


class Elsewhere(torch.autograd.Function):
    """The same numbers, and a gradient that belongs to others, as of a kernel that reads memory in another order."""

    @staticmethod
    def forward(ctx, v, change):
        ctx.change = change
        return v.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.change(gradient), None


WRONG = {
    "another order": lambda g: g.flatten().flip(0).view_as(g),
    "another sign": lambda g: -g,
    "no number": lambda g: g * float("nan"),
    "nothing": torch.zeros_like,
    "half of it": lambda g: g * 0.5,
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_gradient_that_is_not_the_velocitys_is_found(setup, monkeypatch, change):
    forward = setup.policy.network.forward
    monkeypatch.setattr(
        setup.policy.network, "forward", lambda **inputs: (Elsewhere.apply(forward(**inputs)[0], change),)
    )
    found = self_test(setup, 0)
    assert found.velocity_error == 0
    assert not found.gradient_error < 0.4
    assert "the gradient is not that of the velocity" in found.cause


@pytest.mark.parametrize("kept", ["dtype='bfloat16'", "memory='fp8'", "offload=1.0", "checkpointing=true"])
def test_no_way_of_storing_and_computing_is_taken_for_a_wrong_gradient(config_file, kept):
    found = self_test(prepare(load_config(config_file(), [f"model.{kept}"])), 0)
    assert found.gradient_error < 0.2
    assert found.cause == ""


def test_the_lora_is_as_before_if_a_call_of_the_test_fails():
    lora, calls = [torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)], []

    def velocity():
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError
        return 2 * lora[0]

    with pytest.raises(torch.OutOfMemoryError):
        gradient_error(velocity(), velocity, lora)
    assert all(torch.equal(p, torch.ones_like(p)) and p.grad is None for p in lora)


@pytest.mark.also_on_card
def test_a_run_tells_it_once_before_its_first_iteration(setup):
    events = []
    train(setup, new_state(setup), on_event=events.append, save=lambda _: None)
    assert [type(e).__name__ for e in events[:3]] == ["Started", "SelfTested", "Drawn"]
    assert sum(isinstance(e, SelfTested) for e in events) == 1
