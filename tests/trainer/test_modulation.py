"""Modulation computed ahead: the same velocities, from a table or at the call, and where the weights are."""

import pytest
import torch
from small_step import GEOMETRY, small_flux
from torch import nn

from trainer.models.flux1.conditions import conditioning
from trainer.models.flux1.policy import FluxPolicy
from trainer.models.lora.attach import ADAPTER, attach_lora, lora_parameters
from trainer.models.storage.frozen import FrozenLinear
from trainer.models.storage.memory import MemoryPlan, Storage
from trainer.models.storage.modulation import (
    Modulator,
    compute_again,
    compute_ahead,
    modulation_of,
    modulators,
    places,
)

CPU = torch.device("cpu")
SIGMAS = (1.0, 0.7, 0.30000001, 0.1)


def ahead(model: nn.Module, precision: str = "bf16") -> nn.Module:
    """The model with the same weights, its modulation computed ahead."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    compute_ahead(model, CPU)
    storage = Storage(MemoryPlan(precision), device="cpu", dtype=torch.float32)
    storage.prepare(model)
    for name, weight in weights.items():
        storage.put(model, name, weight)
    return model


def policy(network: nn.Module) -> FluxPolicy:
    return FluxPolicy(network, None, guidance=3.5, resolution_shift=True)


def told():
    generator = torch.Generator().manual_seed(1)
    return conditioning(torch.randn(2, 5, 32, generator=generator), torch.randn(2, 32, generator=generator))


def asked(sigmas=SIGMAS, count: int = 6):
    """x, sigma and rows of candidates of two prompts at several sigmas."""
    x = torch.randn(count, GEOMETRY.tokens, 64, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor(sigmas)[torch.arange(count) % len(sigmas)], torch.arange(count) // 3 % 2


@torch.no_grad()
def velocity(network: nn.Module, conditioning, *arguments) -> torch.Tensor:
    return policy(network).velocity(conditioning, GEOMETRY)(*arguments)


@pytest.mark.parametrize("known", [True, False])
def test_the_velocity_is_that_of_norms_that_compute_for_themselves(known):
    conditioning = told().at(SIGMAS) if known else told()
    expected = velocity(small_flux(), told(), *asked())
    found = velocity(ahead(small_flux()), conditioning, *asked())
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_a_sigma_that_was_not_announced_gives_no_number():
    x, sigma, rows = asked()
    sigma[2] = 0.5
    found = velocity(ahead(small_flux()), told().at(SIGMAS), x, sigma, rows)
    assert found[2].isnan().all()
    assert found[[0, 1, 3, 4, 5]].isfinite().all()


def test_places_are_found_exactly():
    grid = torch.tensor(SIGMAS)
    assert places(torch.tensor([0.1, 1.0, 0.3, 0.30000001, 0.7]), grid).tolist() == [3, 0, 2, 2, 1]
    assert places(torch.tensor([0.3000001, 0.0]), grid).tolist() == [4, 4]


def test_the_norms_layers_are_computed_once_for_all_calls_on_the_same_question(monkeypatch):
    network, computed = ahead(small_flux()), []
    plain = Modulator.ahead
    monkeypatch.setattr(Modulator, "ahead", lambda layer, x: computed.append(len(x)) or plain(layer, x))
    layers = len(list(modulators(network)))
    for _ in range(2):  # as rollout and update
        evaluate = policy(network).velocity(told().at(SIGMAS), GEOMETRY)
        for _ in range(3):
            evaluate(*asked())
    assert computed == [2 * len(SIGMAS)] * layers
    policy(network).velocity(told().at(SIGMAS[1:]), GEOMETRY)
    policy(network).velocity(told()[[1, 0]].at(SIGMAS[1:]), GEOMETRY)
    assert len(computed) == 3 * layers


def test_another_guidance_is_another_question():
    network, conditioning = ahead(small_flux()), told().at(SIGMAS)
    first, second = policy(network), FluxPolicy(network, None, guidance=1.0, resolution_shift=True)
    with torch.no_grad():
        before, found = (p.velocity(conditioning, GEOMETRY)(*asked()) for p in (first, second))
        expected = FluxPolicy(small_flux(), None, 1.0, resolution_shift=True).velocity(told(), GEOMETRY)(*asked())
    assert (found - before).norm() > 1e-3 * before.norm()
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_the_table_is_let_go_while_nobody_uses_the_model():
    network = ahead(small_flux())
    policy(network).velocity(told().at(SIGMAS), GEOMETRY)
    modulation = modulation_of(network)
    assert modulation._table is not None
    for layer in modulators(network):
        layer.settle()
    assert modulation._table is None


def test_8_bits_are_those_of_the_blocks_norms_but_not_of_the_last_one():
    network = ahead(small_flux(), "fp8")
    kept = {layer.weight.dtype for layer in modulators(network) if layer is not network.norm_out.linear}
    assert kept == {torch.int8}
    assert network.norm_out.linear.weight.dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_lora_on_the_norms_has_them_compute_for_themselves(precision):
    network = ahead(small_flux(), precision)
    before = velocity(network, told(), *asked())
    attach_lora(network, rank=2, alpha=2, targets=r".+\.norm1\.linear", presets={}, seed=0, adapter=ADAPTER)
    assert modulation_of(network) is None
    assert len(lora_parameters(network, ADAPTER)) == 2 * len(network.transformer_blocks)
    after = velocity(network, told().at(SIGMAS), *asked())  # B = 0: the LoRA does nothing yet
    assert (after - before).norm() < 1e-6 * before.norm()
    kind = FrozenLinear if precision == "fp8" else nn.Linear
    assert type(network.transformer_blocks[0].norm1_context.linear) is kind
    with torch.no_grad():
        for name, parameter in lora_parameters(network, ADAPTER).items():
            parameter.fill_(0.01 if ".lora_B." in name else 0.1)
    assert (velocity(network, told().at(SIGMAS), *asked()) - before).norm() > 1e-4 * before.norm()


def test_a_lora_elsewhere_leaves_them_ahead():
    network = ahead(small_flux())
    attach_lora(network, rank=2, alpha=2, targets=r".+\.attn\.to_q", presets={}, seed=0, adapter=ADAPTER)
    assert modulation_of(network) is not None


def test_gradients_go_through_checkpointed_blocks_as_they_do_through_plain_norms():
    found = []
    for network in (small_flux(), ahead(small_flux())):
        lora = attach_lora(network, rank=2, alpha=2, targets=r".+\.attn\.to_q", presets={}, seed=0, adapter=ADAPTER)
        network.enable_gradient_checkpointing()
        policy(network).velocity(told().at(SIGMAS), GEOMETRY)(*asked()).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for name, p in lora.items() if ".lora_B." in name]))
    expected, gradient = found
    assert (gradient - expected).norm() < 1e-5 * expected.norm()


def test_compute_again_without_anything_ahead_changes_nothing():
    network = small_flux()
    compute_again(network)
    assert isinstance(network.transformer_blocks[0].norm1.silu, nn.SiLU)
    assert type(network.transformer_blocks[0].norm1.linear) is nn.Linear
