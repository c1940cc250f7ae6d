"""The LoRA: what is trained, and the file other programs load."""

import json
import re
import warnings
from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from exported import read_lora
from safetensors import safe_open

from trainer.engine.setup import add_lora
from trainer.models.files.source import resolve
from trainer.models.flux1.conditions import conditioning
from trainer.models.flux1.family import load_flux
from trainer.models.flux1.geometry import Geometry
from trainer.models.flux1.lora_names import TARGETS
from trainer.models.lora.attach import (
    ADAPTER,
    attach_lora,
    detach_lora,
    lora_parameters,
    set_weights,
)
from trainer.models.lora.export import export_lora, file_tensors
from trainer.models.lora.targets import LoraError
from trainer.models.storage.placement import Placement
from trainer.settings.config import LoraSettings

GEOMETRY = Geometry(64, 64)


def random_policy(folder, targets="all-linear", rank=4, alpha=10.0):
    """A policy whose LoRA is not zero, and its LoRA."""
    policy = load_flux(resolve(str(folder)), Placement("cpu", torch.float32), guidance=3.5)
    lora = attach_lora(policy.network, rank=rank, alpha=alpha, targets=targets, presets=TARGETS, seed=1)
    generator = torch.Generator().manual_seed(2)
    set_weights(lora, {name: 0.2 * torch.randn(p.shape, generator=generator) for name, p in lora.items()})
    return policy, lora


@pytest.fixture
def batch():
    """x, sigma, rows and a conditioning of random numbers."""
    g = torch.Generator().manual_seed(3)
    told = conditioning(torch.randn(2, 12, 32, generator=g), torch.randn(2, 32, generator=g))
    return torch.randn(2, 16, 64, generator=g), torch.tensor([0.3, 0.8]), torch.arange(2), told


@torch.no_grad()
def velocity(policy, batch):
    x, sigma, rows, told = batch
    return policy.velocity(told, GEOMETRY)(x, sigma, rows)


def test_a_new_lora_changes_nothing(flux_dev, batch):
    policy = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.float32), guidance=3.5)
    before = velocity(policy, batch)
    attach_lora(policy.network, rank=4, alpha=8, targets="all-linear", presets=TARGETS, seed=0)
    assert torch.equal(velocity(policy, batch), before)


def test_only_the_lora_is_trained_and_in_float32(flux_dev):
    policy = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.bfloat16), guidance=3.5)
    lora = attach_lora(policy.network, rank=4, alpha=8, targets="all-linear", presets=TARGETS, seed=0)
    trained = {id(p) for p in policy.network.parameters() if p.requires_grad}
    assert trained == {id(p) for p in lora.values()}
    assert {p.dtype for p in lora.values()} == {torch.float32}
    assert not any(p.requires_grad for p in policy.vae.vae.parameters())


def test_the_lora_starts_from_its_seed_and_leaves_the_global_generator_alone(flux_dev):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, third = (
        attach_lora(
            load_flux(resolve(str(flux_dev)), Placement("cpu", torch.float32), guidance=1).network,
            rank=2,
            alpha=2,
            targets="attention",
            presets=TARGETS,
            seed=seed,
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_the_reference_is_the_base_model_and_the_lora_comes_back(flux_dev, batch):
    base = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.float32), guidance=3.5)
    policy, lora = random_policy(flux_dev)
    trained = velocity(policy, batch)
    with policy.reference():
        assert torch.equal(velocity(policy, batch), velocity(base, batch))
    assert torch.equal(velocity(policy, batch), trained)
    assert not torch.equal(velocity(base, batch), trained)
    assert all(p.requires_grad for p in lora.values())


@pytest.mark.parametrize(("rank", "alpha"), [(4, 4.0), (4, 10.0), (8, 1.0)])
@pytest.mark.parametrize("targets", list(TARGETS))
def test_the_exported_file_gives_diffusers_the_same_output(flux_dev, batch, tmp_path, targets, rank, alpha):
    policy, lora = random_policy(flux_dev, targets, rank, alpha)
    path = export_lora(tmp_path / "lora.safetensors", file_tensors(lora, alpha), {})
    pipeline = FluxPipeline.from_pretrained(flux_dev, local_files_only=True)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    x, sigma, _, conditioning = batch
    with torch.no_grad():
        loaded = pipeline.transformer(
            hidden_states=x,
            timestep=sigma,
            guidance=torch.full((2,), 3.5),
            encoder_hidden_states=conditioning.tensors["embeddings"],
            pooled_projections=conditioning.tensors["pooled"],
            txt_ids=torch.zeros(12, 3),
            img_ids=GEOMETRY.position_ids(),
            return_dict=False,
        )[0]
    torch.testing.assert_close(loaded, velocity(policy, batch), rtol=0, atol=1e-5)


def test_the_file_names_its_tensors_as_comfyui_and_diffusers_expect(flux_dev, tmp_path):
    _, lora = random_policy(flux_dev, rank=4, alpha=10.0)
    path = export_lora(
        tmp_path / "lora.safetensors", file_tensors(lora, 10.0), {"base_model": "flux", "settings": {"a": 1}}
    )
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        assert file.metadata() == {"format": "pt", "base_model": "flux", "settings": json.dumps({"a": 1})}
        modules = {n.removesuffix(".alpha") for n in names if n.endswith(".alpha")}
        assert {float(file.get_tensor(f"{m}.alpha")) for m in modules} == {10.0}
    pattern = r"transformer\.(single_)?transformer_blocks\.\d+\.[a-z0-9_.]+"
    assert all(re.fullmatch(pattern, m) for m in modules)
    assert set(names) == {f"{m}.{s}" for m in modules for s in ("alpha", "lora_A.weight", "lora_B.weight")}
    assert list(tmp_path.iterdir()) == [path]


def test_reading_an_export_returns_what_was_written(flux_dev, tmp_path):
    policy, lora = random_policy(flux_dev, alpha=10.0)
    path = export_lora(tmp_path / "lora.safetensors", file_tensors(lora, 10.0), {"iteration": 7})
    weights, alpha, metadata = read_lora(path)
    assert alpha == 10.0
    assert metadata["iteration"] == "7"
    assert weights.keys() == lora_parameters(policy.network, ADAPTER).keys()
    assert all(torch.equal(weights[name], lora[name]) for name in lora)


def test_the_targets_cover_the_full_size_model():
    """FLUX.1-dev's own layout: attention has 14 layers fewer in a single block, and no last layer is caught."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
    linear = [n for n, m in transformer.named_modules() if isinstance(m, torch.nn.Linear)]
    found = {targets: [n for n in linear if re.fullmatch(p, n)] for targets, p in TARGETS.items()}
    assert len(found["attention"]) == 19 * 8 + 38 * 3
    assert len(found["all-linear"]) == 19 * (8 + 4) + 38 * (3 + 2)
    assert "proj_out" not in found["all-linear"]


def test_a_lora_of_another_model_is_refused_by_name(flux_dev):
    _, lora = random_policy(flux_dev)
    name = next(iter(lora))
    with pytest.raises(LoraError, match=re.escape(name)):
        set_weights(lora, {**lora, name: torch.zeros(1, 1)})
    with pytest.raises(LoraError, match="does not fit"):
        set_weights(lora, {n: p for n, p in lora.items() if n != name})


def test_two_loras_share_a_transformer_and_keep_apart(flux_dev):
    """Each policy sees its own LoRA alone, trains it alone, and leaves the other as it was when it goes."""
    policy = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.float32), guidance=3.5)
    first, second = (replace(policy, adapter=name) for name in ("a", "b"))
    a, b = (add_lora(p, LoraSettings(rank=4, alpha=8), seed) for p, seed in ((first, 1), (second, 2)))
    assert a.keys() == b.keys()
    assert any(not torch.equal(a[name], b[name]) for name in a)
    for p in a.values():
        p.data = torch.full_like(p, 0.05)
    told = conditioning(torch.zeros(1, 3, 32), torch.zeros(1, 32))
    x, sigma, rows = torch.randn(1, 16, 64), torch.tensor([0.5]), torch.tensor([0])

    def velocity(policy):
        return policy.velocity(told, GEOMETRY)(x, sigma, rows)

    with policy.reference():
        base = velocity(policy)
    v_a, v_b = velocity(first), velocity(second)
    assert torch.equal(v_b, base)  # B = 0 at the start
    assert not torch.allclose(v_a, base)
    v_b.square().sum().backward()
    assert all(p.grad is None for p in a.values())
    assert any(p.grad is not None and p.grad.any() for p in b.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detach_lora(policy.network, "b")
    assert torch.equal(velocity(first), v_a)
