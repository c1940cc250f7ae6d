"""What memory = "auto" chooses, for FLUX.1-dev by the peaks that the planner counts for it."""

import logging
from dataclasses import replace

import pytest

from trainer.models.storage.memory import MemoryPlan
from trainer.planning.advice import GIB
from trainer.planning.choice import MARGIN, Choice, choose
from trainer.planning.phases import Peak, predict
from trainer.settings.config import Config, ModelSettings, RewardSettings
from trainer.settings.config_file import load_config

CONFIG = Config(ModelSettings("FLUX.1-dev"), ("a cat",), (RewardSettings("hpsv2.1"),))
WEIGHTS = {"bf16": 16.12, "fp8": 8.11}  # GiB
# of the rollout, the decoding, the rewards and the update above the weights, with a micro-batch of 4
ABOVE = {512: (1.41, 2.45, 2.77, 4.13), 1024: (2.77, 2.66, 2.99, 10.52)}


class Counted:
    """The planner's table, and which plans were asked for."""

    def __init__(self, edge: int = 512):
        self.edge, self.asked = edge, []

    def __call__(self, config, plan):
        size = config.run.micro_batch
        self.asked.append((plan, size))
        weights = WEIGHTS[plan.precision] - 8.02 * plan.offload + (0.15 if plan.offload else 0)
        rollout, decode, reward, update = ABOVE[self.edge]
        above = {"load": 2.08, "rollout": rollout, "decode": decode, "reward": reward}
        above["update"] = 0.99 + (update - 0.99) * size / 4
        peaks = {phase: Peak(round((weights + extra) * GIB), 0) for phase, extra in above.items()}
        return {"encode": Peak(99 * GIB, 0), **peaks}  # over before the choice is made


def chosen(free: float, edge: int = 512, **model) -> tuple[str, float, int]:
    """For GiB of free memory that leave so much room."""
    config = replace(CONFIG, model=replace(CONFIG.model, **model))
    choice = choose(config, round(free / (1 - MARGIN) * GIB), Counted(edge))
    return choice.plan.precision, choice.plan.offload, choice.micro_batch


@pytest.mark.parametrize(
    ("room", "edge", "expected"),
    [
        (21.0, 512, ("bf16", 0.0, 4)),  # a card of 24 GB
        (19.4, 512, ("bf16", 0.0, 2)),
        (17.0, 512, ("fp8", 0.0, 4)),
        (19.0, 1024, ("fp8", 0.0, 4)),  # activations of 10 GiB fit too
        (12.0, 1024, ("fp8", 0.0, 1)),
        (11.5, 512, ("fp8", 0.0, 2)),  # a card of 12 GB
        (9.0, 512, ("fp8", 0.5, 4)),
        (7.0, 512, ("fp8", 0.7, 4)),
        (4.0, 512, ("fp8", 1.0, 2)),
        (1.0, 512, ("fp8", 1.0, 1)),  # the smallest, which does not fit either
    ],
)
def test_the_fastest_plan_that_fits_is_chosen_with_what_its_phases_need(room, edge, expected):
    assert chosen(room, edge) == expected


def test_the_wished_share_of_offload_is_the_least():
    assert chosen(30.0, offload=0.3) == ("fp8", 0.3, 4)
    assert chosen(7.0, offload=0.3) == ("fp8", 0.7, 4)


def test_a_named_plan_is_taken_and_a_device_that_counts_nothing_gets_the_models_own_precision():
    def count(config, plan):
        pytest.fail("nothing is to be counted")

    named = replace(CONFIG, model=ModelSettings("FLUX.1-dev", memory="fp8", offload=0.5))
    assert choose(named, GIB, count) == Choice(MemoryPlan("fp8", 0.5), 4)
    assert choose(CONFIG, None, count) == Choice(MemoryPlan("bf16"), 4)


@pytest.mark.parametrize(("room", "most"), [(21.0, 1), (17.0, 2), (11.5, 2), (9.0, 3), (4.0, 3)])
def test_few_plans_are_counted(room, most):
    count = Counted()
    choose(CONFIG, round(room / (1 - MARGIN) * GIB), count)
    assert 1 <= len(count.asked) <= most


def test_less_than_was_wished_for_is_told(caplog):
    with caplog.at_level(logging.INFO, logger="trainer"):
        chosen(21.0)
        chosen(11.5)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages[1] == "model.memory = 'auto': fp8 with a micro-batch of 2, as 12.3 GiB are free"


def test_the_planners_own_counts_decide_for_a_small_model(config_file):
    """Between the counts of two plans the smaller one is chosen, above both the larger one."""
    config = load_config(config_file(), ["run.micro_batch=1"])
    config = replace(config, run=replace(config.run, micro_batch=1))
    peaks = {
        name: max(p.device for phase, p in predict(config, MemoryPlan(name)).items() if phase != "encode")
        for name in ("bf16", "fp8")
    }
    assert peaks["fp8"] < peaks["bf16"]
    for room, expected in ((sum(peaks.values()) / 2, "fp8"), (peaks["bf16"] + 1, "bf16")):
        assert choose(config, round(room / (1 - MARGIN)) + 1).plan == MemoryPlan(expected)
