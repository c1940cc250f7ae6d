"""How far the policy went from its base model, on the way of the base noises."""

import pytest
import torch

from trainer.engine.state import new_state
from trainer.events import IterationDone
from trainer.settings.config_file import load_config
from trainer.training.base_noises import away_from_base, base_pictures, base_trajectories
from trainer.training.loop import iterate
from trainer.training.prepare import prepare

PROMPTS, SEEDS = [1, 0, 1], [5, 6, 7]


@pytest.fixture
def setup(config_file):
    return prepare(load_config(config_file(), ["sampling.solver='euler'", "sampling.steps=3"]))


def scaled_lora(setup, by: float) -> None:
    """A LoRA that does something: its last factors are 0 when a run begins."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in setup.lora.values():
            p.copy_(torch.randn(p.shape, generator=generator) * by)


@pytest.mark.also_on_card
def test_an_untrained_lora_is_the_base_model(setup):
    away = away_from_base(setup, PROMPTS, base_trajectories(setup, PROMPTS, SEEDS))
    assert away == {"velocity_change": 0, "velocity_norm": pytest.approx(1, abs=1e-6)}


def test_both_are_means_over_steps_and_prompts_at_the_policys_own_states(setup):
    scaled_lora(setup, 0.2)
    way = base_trajectories(setup, PROMPTS, SEEDS)
    away = away_from_base(setup, PROMPTS, way)
    velocity = setup.policy.velocity(setup.conditioning, setup.geometry)
    rows, change, norm = torch.tensor(PROMPTS), [], []
    with torch.no_grad():
        for x, s in zip(way.x, setup.sigmas.tolist(), strict=False):
            at = (x, torch.full((3,), s), rows)
            v = velocity(*at)
            with setup.policy.reference():
                v_base = velocity(*at)
            change += [float((a - b).norm() / b.norm()) for a, b in zip(v, v_base, strict=True)]
            norm += [float(a.norm() / b.norm()) for a, b in zip(v, v_base, strict=True)]
    assert len(change) == 9
    assert away["velocity_change"] == pytest.approx(sum(change) / 9, rel=1e-4)
    assert away["velocity_norm"] == pytest.approx(sum(norm) / 9, rel=1e-4)
    assert away["velocity_change"] > 0.01


def test_a_longer_velocity_is_told(setup, monkeypatch):
    """Twice as long in the same direction: both measures know it exactly."""
    way = base_trajectories(setup, PROMPTS, SEEDS)
    twice = type(way)(**{**vars(way), "v": 2 * way.v})
    assert away_from_base(setup, PROMPTS, twice) == {
        "velocity_change": pytest.approx(1, rel=1e-5),
        "velocity_norm": pytest.approx(2, rel=1e-5),
    }


@pytest.mark.parametrize(("every", "told"), [(1, True), (0, False)])
def test_an_iteration_tells_it_where_base_noises_are_drawn(setup, config_file, every, told):
    setup = prepare(load_config(config_file(), [f"run.base_every={every}"]))
    events = []
    iterate(setup, new_state(setup), events.append)
    (done,) = [e for e in events if isinstance(e, IterationDone)]
    assert ({"velocity_change", "velocity_norm"} <= done.metrics.keys()) == told
    if told:
        torch.testing.assert_close(done.base, base_pictures(prepare(setup.config), *slots(setup, done)))


def slots(setup, done) -> tuple[list[int], list[int]]:
    return [setup.config.prompts.index(p) for p in done.prompts], list(done.seeds)
