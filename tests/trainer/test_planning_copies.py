"""What a plan counts of copies: those made ahead, those that wait at home, and those that exist for a moment."""

import pytest
import torch
from PIL import Image
from torch import nn

from trainer.cli.bench import CONFIG
from trainer.models.lora.attach import attach_lora, lora_layers
from trainer.models.lora.fused import FusedLora
from trainer.models.storage.fetching import LayerFetcher
from trainer.models.storage.frozen import FrozenLinear
from trainer.models.storage.memory import MemoryPlan
from trainer.models.storage.modulation import Modulator
from trainer.planning import models
from trainer.planning.phases import fill, predict, prepared
from trainer.planning.rewards import Counted
from trainer.planning.tracker import DEVICE, HOST, MemoryTracker
from trainer.settings.config_file import load_config

SETTINGS = ['prompts=["red apple on a blue background"]', "model.dtype='bfloat16'", "grpo.group_size=4"]


def planned(monkeypatch, ahead: int, *more: str):
    monkeypatch.setattr(LayerFetcher, "ahead", ahead)
    return predict(load_config(CONFIG, [*SETTINGS, *more]), MemoryPlan("bf16", 1.0))


def test_bytes_that_are_copied_ahead_are_on_the_device_from_the_rollout_on(monkeypatch):
    none, some, all_ = (planned(monkeypatch, ahead) for ahead in (0, 12_345, 2**40))
    network = models.transformer(load_config(CONFIG, SETTINGS).model.path)
    fill(network, prepared(network, MemoryPlan("bf16", 1.0), torch.bfloat16, tracker := MemoryTracker()), tracker)
    layers = [m for m in network.modules() if isinstance(m, FrozenLinear) and not isinstance(m, Modulator)]
    offloaded = sum(layer.weight.nbytes for layer in layers)
    for phase in ("rollout", "decode", "reward", "update"):
        assert some[phase].device - none[phase].device == 12_345
        assert all_[phase].device - none[phase].device == offloaded


def test_pictures_to_begin_from_are_encoded_on_the_device_while_the_model_is_loaded(monkeypatch, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "seen.png")
    large, init = ["sampling.width=256", "sampling.height=256"], f"init.image=['{tmp_path / 'seen.png'}']"
    plain, seen = planned(monkeypatch, 0, *large), planned(monkeypatch, 0, *large, init)
    assert seen["load"].device > plain["load"].device


def test_a_lora_on_8_bit_layers_is_the_runs_with_its_rounded_copies():
    network = models.transformer(load_config(CONFIG, SETTINGS).model.path)
    fill(network, prepared(network, MemoryPlan("fp8"), torch.bfloat16, tracker := MemoryTracker()), tracker)
    attach_lora(network, rank=4, alpha=4, targets=r".*to_q", seed=0, dtype=torch.bfloat16)
    assert {type(layer) for layer in lora_layers(network).values()} == {FusedLora}


def test_a_weight_is_there_three_times_while_its_8_bits_are_made():
    with torch.device("meta"):
        model = nn.Sequential(nn.ModuleList([nn.Sequential(nn.Linear(1000, 1000, bias=False))]))
    tracker = MemoryTracker()
    storage = prepared(model, MemoryPlan("fp8"), torch.bfloat16, tracker)
    with tracker:
        fill(model, storage, tracker)
    # as it was read, in float32, and in 8 bits; and its scales
    assert tracker.peak[DEVICE] == pytest.approx(1e6 * (2 + 4 + 1), rel=0.01)
    assert tracker.live[DEVICE] == pytest.approx(1e6, rel=0.01)


def test_a_reward_that_was_at_home_is_in_both_memories_while_it_is_away():
    with torch.device("meta"):
        model = nn.Linear(1000, 1000, bias=False).requires_grad_(False)
    tracker, found = MemoryTracker(), []
    reward = Counted(reward=None, model=model, tracker=tracker)
    with tracker:
        for device in ("meta", "cpu", "meta", "cpu"):
            reward.to(device)
            found.append((tracker.live[DEVICE], tracker.live[HOST]))
    size = model.weight.nbytes
    assert found == [(size, 0), (0, size), (size, size), (0, size)]
