"""The self-test finds a model that does not compute in the update what it computed in the rollout."""

import pytest
import torch

from trainer.config_file import load_config
from trainer.events import SelfTested
from trainer.loop import train
from trainer.self_test import self_test
from trainer.setup import prepare
from trainer.state import new_state


@pytest.fixture
def setup(config_file):
    return prepare(load_config(config_file(), ["run.micro_batch=3"]))


@pytest.fixture
def spoil(setup, monkeypatch):
    """Add something to the velocity; `extra` is called with it."""
    forward = setup.policy.transformer.forward

    def spoil(extra):
        def spoilt(**inputs):
            v = forward(**inputs)[0]
            return (v + extra(v),)

        monkeypatch.setattr(setup.policy.transformer, "forward", spoilt)

    return spoil


@pytest.mark.also_on_card
def test_a_healthy_model_passes(setup):
    assert self_test(setup, 7) == SelfTested(7, 0.0, 0.0, "")


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
    setup.policy.transformer.train()
    assert "dropout" in self_test(setup, 0).cause


@pytest.mark.also_on_card
def test_what_is_within_the_tolerance_is_reported_without_a_cause(setup, spoil):
    spoil(lambda v: 1e-5 * torch.is_grad_enabled() * v)
    found = self_test(setup, 0)
    assert 0 < found.velocity_error < 1e-4
    assert found.cause == ""


def test_another_velocity_is_found_at_a_size_at_which_the_ratio_does_not_tell_it(config_file, monkeypatch):
    """Twice the velocity with gradient. |rho - 1| falls with 1 / sqrt(D)."""
    size = ["sampling.width=512", "sampling.height=512", "run.micro_batch=2"]
    setup = prepare(load_config(config_file(), [*size, "grpo.temperature_mode='element-mean'"]))
    forward = setup.policy.transformer.forward

    def doubled(**inputs):
        return (forward(**inputs)[0] * (2 if torch.is_grad_enabled() else 1),)

    monkeypatch.setattr(setup.policy.transformer, "forward", doubled)
    found = self_test(setup, 0)
    assert found.ratio_error < 0.05  # the clip is at 0.2
    assert found.velocity_error == pytest.approx(1)
    assert "otherwise with gradient" in found.cause


@pytest.mark.also_on_card
def test_another_velocity_at_the_last_step_alone_is_found(setup, spoil, monkeypatch):
    forward = setup.policy.transformer.forward
    last = setup.sigmas[-2].item()

    def spoilt(**inputs):
        late = torch.is_grad_enabled() and inputs["timestep"].max() <= last + 1e-6
        return (forward(**inputs)[0] * (1.1 if late else 1),)

    monkeypatch.setattr(setup.policy.transformer, "forward", spoilt)
    found = self_test(setup, 0)
    assert found.velocity_error == pytest.approx(0.1, rel=1e-4)
    assert "otherwise with gradient" in found.cause


@pytest.mark.also_on_card
def test_a_velocity_that_is_no_number_is_found(setup, spoil):
    spoil(lambda v: float("nan") if torch.is_grad_enabled() else 0.0)
    assert "otherwise with gradient" in self_test(setup, 0).cause


@pytest.mark.also_on_card
def test_a_run_tells_it_once_before_its_first_iteration(setup):
    events = []
    train(setup, new_state(setup), on_event=events.append, save=lambda _: None)
    assert [type(e).__name__ for e in events[:3]] == ["Started", "SelfTested", "IterationDone"]
    assert sum(isinstance(e, SelfTested) for e in events) == 1
