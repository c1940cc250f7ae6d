"""What memory = "auto" chooses, for FLUX.1-dev by the peaks that the planner counts for it."""

import logging
from dataclasses import replace

import pytest

from trainer.models.storage.memory import MemoryPlan
from trainer.planning.advice import GIB
from trainer.planning.choice import MARGIN, Choice, choose, drawn_at_once
from trainer.planning.phases import Peak, predict
from trainer.settings.config import Config, GrpoSettings, ModelSettings, RewardSettings, RunSettings
from trainer.settings.config_file import load_config

CONFIG = Config(ModelSettings("FLUX.1-dev"), ("a cat",), (RewardSettings("hpsv2.1"),))
WEIGHTS = {"bf16": 16.12, "fp8": 8.11}  # GiB
# of the rollout, the decoding, the rewards and the update above the weights, with a micro-batch of 4
ABOVE = {512: (1.41, 2.45, 2.77, 4.13), 1024: (2.77, 2.66, 2.99, 10.52)}
KEPT = {512: 2.6, 1024: 10.4}  # of the update, if the blocks' inputs are kept


class Counted:
    """The planner's table, and which plans were asked for."""

    def __init__(self, edge: int = 512):
        self.edge, self.asked = edge, []

    def __call__(self, config, plan):
        size, drawn = config.run.micro_batch, config.run.drawn_at_once
        self.asked.append((plan, size, drawn))
        weights = WEIGHTS[plan.precision] - 8.02 * plan.offload + (0.15 if plan.offload else 0)
        rollout, decode, reward, update = ABOVE[self.edge]
        rollout = 0.8 + (rollout - 0.8) * drawn / 4
        above = {"load": 2.08, "rollout": rollout, "decode": decode, "reward": reward}
        kept = KEPT[self.edge] if config.model.keep_inputs is True else 0.0
        above["update"] = 0.99 + (update - 0.99) * size / 4 + kept
        peaks = {phase: Peak(round((weights + extra) * GIB), 0) for phase, extra in above.items()}
        return {"encode": Peak(99 * GIB, 0), **peaks}  # over before the choice is made


def chosen(free: float, edge: int = 512, **model) -> tuple[str, float, int, int]:
    """For GiB of free memory that leave so much room."""
    config = replace(CONFIG, model=replace(CONFIG.model, **model))
    choice = choose(config, round(free / (1 - MARGIN) * GIB), Counted(edge))
    return choice.plan.precision, choice.plan.offload, choice.micro_batch, choice.rollout_batch


@pytest.mark.parametrize(
    ("room", "edge", "expected"),
    [
        (21.0, 512, ("bf16", 0.0, 4, 12)),  # a card of 24 GB
        (19.4, 512, ("bf16", 0.0, 2, 12)),
        (17.0, 512, ("fp8", 0.0, 4, 12)),
        (19.0, 1024, ("fp8", 0.0, 4, 12)),  # activations of 10 GiB fit too
        (12.0, 1024, ("fp8", 0.0, 1, 6)),
        (11.55, 1024, ("fp8", 0.0, 1, 4)),
        (11.5, 512, ("fp8", 0.0, 2, 12)),  # a card of 12 GB
        (9.0, 512, ("fp8", 0.5, 4, 12)),
        (7.0, 512, ("fp8", 0.7, 4, 12)),
        (4.0, 512, ("fp8", 1.0, 2, 12)),
        (1.0, 512, ("fp8", 1.0, 1, 1)),  # the smallest, which does not fit either
    ],
)
def test_the_fastest_plan_that_fits_is_chosen_with_what_its_phases_need(room, edge, expected):
    assert chosen(room, edge) == expected


def test_the_wished_share_of_offload_is_the_least():
    assert chosen(30.0, offload=0.3) == ("fp8", 0.3, 4, 12)
    assert chosen(7.0, offload=0.3) == ("fp8", 0.7, 4, 12)


def never(config, plan):
    pytest.fail("nothing is to be counted")


def test_a_named_plan_is_taken_and_a_device_that_counts_nothing_gets_the_models_own_precision():
    named = replace(CONFIG, model=ModelSettings("FLUX.1-dev", memory="fp8", offload=0.5))
    for keeps in (False, True):
        model = replace(named.model, keep_inputs=keeps)
        numbered = replace(named, model=model, run=RunSettings(rollout_batch=5))
        assert choose(numbered, GIB, never) == Choice(MemoryPlan("fp8", 0.5), 4, 5, keeps)
    assert choose(CONFIG, None, never) == Choice(MemoryPlan("bf16"), 4, 4)
    assert choose(named, None, never) == Choice(MemoryPlan("fp8", 0.5), 4, 4)


@pytest.mark.parametrize(
    ("memory", "offload", "room", "drawn"),
    [
        ("fp8", 0.0, 99, 12),
        ("fp8", 0.0, 12.0, 6),
        ("fp8", 0.0, 11.0, 4),  # whatever the update takes: the plan is the user's
        ("fp8", 0.25, 10.1, 6),  # a share that `auto` does not try
        ("bf16", 0.0, 99, 12),
    ],
)
def test_beside_a_named_plan_as_many_are_drawn_at_once_as_fit(memory, offload, room, drawn):
    assert chosen(room, 1024, memory=memory, offload=offload) == (memory, offload, 4, drawn)


@pytest.mark.parametrize(("room", "keeps"), [(99, True), (14.9, True), (14.8, False), (11.0, False)])
@pytest.mark.parametrize("drawn", [12, "auto"])
def test_beside_named_numbers_inputs_are_kept_if_there_is_room(room, keeps, drawn):
    named = replace(CONFIG, model=ModelSettings("FLUX.1-dev", memory="fp8"), run=RunSettings(rollout_batch=drawn))
    found = choose(named, round(room / (1 - MARGIN) * GIB), Counted())
    assert found == Choice(MemoryPlan("fp8"), 4, 12, keeps)


def test_a_named_number_beside_a_named_plan_stays_where_it_does_not_fit():
    named = replace(CONFIG, model=ModelSettings("FLUX.1-dev", memory="fp8"), run=RunSettings(rollout_batch=12))
    assert choose(named, 9 * GIB, Counted()) == Choice(MemoryPlan("fp8"), 4, 12)


def test_4_bits_are_counted_as_8():
    config, count = replace(CONFIG, model=ModelSettings("FLUX.1-dev", memory="nf4")), Counted()
    assert choose(config, 99 * GIB, count) == Choice(MemoryPlan("nf4"), 4, 12, keeps=True)
    assert {plan.precision for plan, *_ in count.asked} == {"fp8"}


def test_parts_of_the_rollout_are_as_equal_as_can_be():
    assert drawn_at_once(CONFIG) == [12, 6, 4, 3, 2, 1]
    ten = GrpoSettings(prompts_per_iteration=2, group_size=5)
    assert drawn_at_once(replace(CONFIG, grpo=ten)) == [10, 5, 4, 3, 2, 1]
    assert drawn_at_once(replace(CONFIG, run=RunSettings(rollout_batch=7))) == [7]


def test_a_number_that_the_user_names_decides_about_the_plan():
    config = replace(CONFIG, run=RunSettings(rollout_batch=128))
    found = choose(config, round(27.0 / (1 - MARGIN) * GIB), Counted())
    assert found.rollout_batch == 128
    assert found.plan.offload > 0


@pytest.mark.parametrize(("room", "most"), [(21.0, 2), (17.0, 3), (11.5, 3), (9.0, 4), (4.0, 4)])
def test_few_plans_are_counted(room, most):
    count = Counted()
    choose(CONFIG, round(room / (1 - MARGIN) * GIB), count)
    assert 1 <= len(count.asked) <= most


def test_less_than_was_wished_for_is_told(caplog):
    with caplog.at_level(logging.INFO, logger="trainer"):
        chosen(21.0)
        chosen(11.5)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING", "INFO"]
    assert caplog.messages[1] == "run.rollout_batch = 'auto': 12 candidates at once"
    assert caplog.messages[2] == "model.memory = 'auto': fp8 with a micro-batch of 2, as 12.3 GiB are free"


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
