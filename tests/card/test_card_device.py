"""What the trainer asks of a device, on one that has it."""

import card
import pytest
import torch
from torch import nn

from trainer.device import (
    allocated_memory,
    computes_bfloat16,
    free_memory,
    peak_memory,
    pick_device,
    release,
    streams_of,
    watch_memory,
)
from trainer.engine.setup import pick_dtype
from trainer.models.flux1.family import vae_dtype
from trainer.models.storage import memory
from trainer.models.storage.eight_bits import quantise
from trainer.settings.config_file import load_config

MIB = 2**20


def test_a_device_that_torch_knows_is_taken_by_its_name():
    assert pick_device("card") == "card"
    assert pick_device("card:0") == "card:0"
    assert streams_of("card") is torch.card


def test_what_torch_holds_without_a_tensor_in_it_is_free():
    card.memory.limit = 100 * MIB
    before = free_memory("card")
    x = torch.zeros(10 * MIB // 4, device="card")
    assert before - free_memory("card") == allocated_memory("card") == 10 * MIB
    del x
    assert torch.card.mem_get_info("card")[0] == before - 10 * MIB  # the driver knows nothing of it
    assert free_memory("card") == before
    release("card")
    assert torch.card.mem_get_info("card")[0] == before


def test_the_peak_is_that_since_the_watch_began():
    x = torch.zeros(3 * MIB // 4, device="card")
    del x
    watch_memory("card")
    y = torch.zeros(2 * MIB // 4, device="card")
    del y
    assert peak_memory("card") == {"memory/device": 2 * MIB}


@pytest.mark.parametrize(
    ("capability", "dtype", "vae"), [((8, 0), "bfloat16", torch.bfloat16), ((7, 5), "float16", torch.float32)]
)
def test_a_card_without_bfloat16_computes_in_float16_and_decodes_in_float32(
    config_file, monkeypatch, capability, dtype, vae
):
    monkeypatch.setattr(torch.card, "capability", capability)
    config = load_config(config_file(), ["model.device='card'"])
    assert computes_bfloat16("card") is (dtype == "bfloat16")
    assert pick_dtype(config) == dtype
    assert vae_dtype(getattr(torch, dtype), "card") == vae
    assert vae_dtype(torch.float16, "card") == vae
    assert pick_dtype(load_config(config_file(), [])) == "float32"  # the CPU


def test_8_bits_are_made_on_the_card_and_are_the_cpus(monkeypatch):
    weight, seen = torch.randn(8, 16).bfloat16(), []
    expected, scale = quantise(weight)

    def watched(tensor):
        seen.append(tensor.device.type)
        return quantise(tensor)

    monkeypatch.setattr(memory, "quantise", watched)
    for offload in (0.0, 1.0):
        with torch.device("meta"):
            model = nn.Sequential(nn.ModuleList([nn.Sequential(nn.Linear(16, 8))]))
        storage = memory.Storage(memory.MemoryPlan("fp8", offload), device="card", dtype=torch.bfloat16)
        storage.prepare(model)
        storage.put(model, "0.0.0.weight", weight)
        layer = model[0][0][0]
        assert layer.weight.device.type == ("cpu" if offload else "card")
        assert torch.equal(layer.weight.cpu(), expected.view(torch.int8))
        assert torch.equal(layer.scale.cpu(), scale)
    assert seen == ["card", "card"]
