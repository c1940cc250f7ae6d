"""What fits a card, what to lower where nothing does, what an iteration costs."""

from dataclasses import replace

import pytest

from trainer.models.storage.memory import MemoryPlan
from trainer.planning.advice import GIB, candidates, cost, fits, lower, title
from trainer.settings.config import Config, GrpoSettings, LoraSettings, ModelSettings, RewardSettings, RunSettings
from trainer.settings.config import SamplingSettings as Sampling
from trainer.settings.presets import PRESETS

BF16, FP8, OFFLOADED = MemoryPlan(), MemoryPlan("fp8"), MemoryPlan("fp8", 1.0)
CONFIG = Config(ModelSettings("FLUX.1-dev"), ("a cat",), (RewardSettings("colourfulness"),))


def test_a_peak_fits_with_a_reserve_for_cuda():
    assert fits(15 * GIB, 16)
    assert not fits(15 * GIB, 15.9)


def test_the_configs_own_share_of_offload_is_a_candidate():
    assert candidates(CONFIG) == [BF16, FP8, OFFLOADED]
    half = replace(CONFIG, model=replace(CONFIG.model, offload=0.5))
    assert [title(p) for p in candidates(half)] == ["bf16", "fp8", "fp8 + offload 0.5", "fp8 + offload 1"]


def test_the_paper_trains_a_third_more_than_one_evaluation_a_sample_and_sde_methods_fourteen():
    c = cost(replace(CONFIG, grpo=GrpoSettings(**PRESETS["paper"].defaults["grpo"])))
    assert (c.rollout, c.update, c.recomputed, c.reference) == (12 * 8, 4 * 4, 4 * 4, 0)
    assert c.per_sample == pytest.approx(1.33, abs=0.005)
    assert c.sde_update == 12 * 14


def test_one_anchor_at_each_of_all_steps_is_half_of_the_papers():
    c = cost(CONFIG)
    assert (c.rollout, c.update, c.recomputed) == (12 * 8, 8, 8)
    assert c.per_sample == pytest.approx(0.67, abs=0.005)


def test_prompts_updates_kl_and_heun_cost_more_and_no_checkpointing_less():
    c = cost(
        replace(
            CONFIG,
            model=replace(CONFIG.model, checkpointing=False),
            sampling=Sampling(solver="heun", steps=5),
            grpo=GrpoSettings(prompts_per_iteration=3, anchors=2, updates_per_rollout=2, kl_weight=0.1),
        )
    )
    assert (c.rollout, c.update, c.recomputed, c.reference) == (3 * 12 * 9, 3 * 2 * 5 * 2, 0, 3 * 2 * 5 * 2)
    assert c.sde_update == 3 * 12 * 14 * 2


def test_settings_are_lowered_in_the_order_of_what_that_costs():
    large = replace(
        CONFIG,
        model=replace(CONFIG.model, text_tokens=512),
        sampling=Sampling(width=1024, height=720),
        lora=LoraSettings(rank=64),
        run=RunSettings(micro_batch=4, rollout_batch=12),
    )
    steps = lower(large).split("; then ")
    assert [step.split(" ")[0] for step in steps] == [
        "run.micro_batch",
        "run.rollout_batch",
        "run.offload_rewards",
        "model.memory",
        "model.memory",
        "model.text_tokens",
        "sampling.width",
        "lora.rank",
        "lora.targets",
    ]
    assert "= 2 (now 4)" in steps[0]
    assert "= 4 (now 12)" in steps[1]
    assert "width = 768, height = 528 (now 1024 x 720)" in steps[6]
    assert "model.memory" not in lower(large, plans=False)
    several = replace(large, sampling=Sampling(sizes=((512, 512), (1024, 720))))
    assert "sampling.sizes of at most 768 x 528 (now 1024 x 720)" in lower(several)


def test_a_config_with_nothing_left_to_lower_needs_a_larger_card():
    least = Config(
        ModelSettings("FLUX.1-dev", memory="fp8", offload=1.0, text_tokens=256),
        ("a cat",),
        (RewardSettings("colourfulness"),),
        lora=LoraSettings(targets="attention"),
        run=RunSettings(micro_batch=1, offload_rewards=True),
    )
    assert lower(least) == "nothing is left to lower: a larger card is needed"
