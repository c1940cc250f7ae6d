"""Reward models in the planner: which of them are one model, in which precision, and what it cannot know."""

import pytest
import torch

from trainer import tiny
from trainer.planning.rewards import assumed, counted, model_dtype
from trainer.planning.tracker import MemoryTracker
from trainer.rewards import KINDS
from trainer.settings.config import RewardSettings


def models(*kinds: str, **options) -> int:
    """How many different models these rewards are."""
    rewards = counted([RewardSettings(kind, options=options) for kind in kinds], MemoryTracker())
    return len({id(reward.model) for reward in rewards.values()})


def test_rewards_of_the_same_weights_are_one_model_and_others_are_not():
    assert models("clipscore", "aesthetic", "text-preference") == 1
    assert models("hpsv2.1", "pickscore", "clipscore") == 3
    assert models("tiny-clip", "tiny-clip-heldout") == 2
    assert models("colourfulness", "remote", "ocr") == 0


@pytest.mark.parametrize(
    ("kind", "options", "device", "dtype"),
    [
        ("hpsv2.1", {}, "meta", torch.float16),
        ("hpsv2.1", {}, "cpu", torch.float32),
        ("imagereward", {"dtype": "bfloat16"}, "meta", torch.bfloat16),
        ("hpsv2", {}, "meta", torch.float32),
        ("clip", {}, "meta", torch.float32),
        ("tiny-clip", {}, "meta", torch.float32),
    ],
)
def test_a_model_has_the_precision_that_the_reward_gives_it(kind, options, device, dtype):
    assert model_dtype(RewardSettings(kind, options=options), device) == dtype


def test_what_is_guessed_or_not_known_is_told():
    file, own = {"path": "/models/some.safetensors"}, "my_rewards:Redness"
    rewards = [
        RewardSettings("clip", options={"path": str(tiny.CLIP)}),
        RewardSettings("pickscore", options=file),
        RewardSettings(own, options=file),
    ]
    assert assumed(rewards) == [
        "reward 'pickscore': counted as the model that is usual for it",
        "reward 'my_rewards:Redness': a class of your own, not counted",
    ]
    assert list(counted(rewards[2:], MemoryTracker())) == []


def test_every_kind_that_loads_weights_is_counted():
    assert [name for name, kind in KINDS.items() if kind.weights and not kind.model] == []
