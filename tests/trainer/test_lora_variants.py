"""Which layers get a LoRA, and its kin: rsLoRA's scale, DoRA's lengths."""

import json
import re
from copy import deepcopy

import pytest
import torch
from diffusers import FluxTransformer2DModel
from lora_files import merged, write
from safetensors.torch import load_file, save_file
from torch import nn

from trainer.errors import ConfigError
from trainer.models.flux1 import lora_names
from trainer.models.flux1.lora_names import TARGETS
from trainer.models.lora.attach import ADAPTER, attach_lora, set_weights
from trainer.models.lora.export import file_tensors
from trainer.models.lora.start import start_from
from trainer.models.lora.targets import LoraError, target_layers
from trainer.settings.config import LoraSettings
from trainer.settings.config_file import load_config
from trainer.training.checkpoint import load as load_checkpoint
from trainer.training.run import start_run
from trainer.training.run_folder import LORA

ALPHA = 6.0


@pytest.fixture(scope="module")
def base(flux_dev):
    return FluxTransformer2DModel.from_pretrained(flux_dev, subfolder="transformer")


@pytest.fixture
def frozen(base):
    return lambda: deepcopy(base)


def trained(transformer, variant, rank=4):
    """A LoRA of random weights on the transformer, DoRA's lengths up to doubled."""
    lora = attach_lora(
        transformer, rank=rank, alpha=ALPHA, targets="all-linear", presets=TARGETS, seed=0, variant=variant
    )
    g = torch.Generator().manual_seed(3)
    moved = {
        name: p * (1 + torch.rand(p.shape, generator=g)) if p.ndim == 1 else torch.randn(p.shape, generator=g)
        for name, p in lora.items()
    }
    set_weights(lora, moved)
    return lora


def delta_of_file(tensors, module, weight):
    """What ComfyUI's `weight_decompose` makes of a module's weight, written down anew."""
    up, down = tensors[f"transformer.{module}.lora_B.weight"], tensors[f"transformer.{module}.lora_A.weight"]
    sum_ = weight + tensors[f"transformer.{module}.alpha"] / len(down) * up @ down
    scale = tensors.get(f"transformer.{module}.dora_scale")
    return (sum_ if scale is None else sum_ * scale / weight.norm(dim=1, keepdim=True)) - weight


def test_an_expression_takes_the_linear_layers_whose_whole_path_it_matches(frozen):
    lora = attach_lora(frozen(), rank=2, alpha=2, targets=r"transformer_blocks\.0\..*|x_embedder", seed=0)
    modules = {name.split(".lora_")[0] for name in lora}
    # norms without weights and the GELU are there as well, and are no linear layers
    block = {"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "norm1.linear", "norm1_context.linear"}
    block |= {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"}
    block |= {f"{part}.net.{layer}" for part in ("ff", "ff_context") for layer in ("0.proj", "2")}
    assert modules == {f"transformer_blocks.0.{name}" for name in block} | {"x_embedder"}


def test_a_second_lora_gets_the_same_layers_as_the_first(frozen):
    transformer = frozen()
    first = set(target_layers(transformer, ".*", {}))
    attach_lora(transformer, rank=2, alpha=2, targets=".*", seed=0, adapter="one")
    assert set(target_layers(transformer, ".*", {})) == first
    assert "transformer_blocks.0.attn.to_q" in first


def test_an_expression_without_a_layer_is_refused_with_what_is_near(frozen):
    message = r"matches no linear layer's whole path; the nearest are .*transformer_blocks\.0\.attn\.to_q"
    with pytest.raises(LoraError, match=message):
        attach_lora(frozen(), rank=2, alpha=2, targets=r"transformer_blocks\.\d+\.attn\.toq", seed=0)
    with pytest.raises(LoraError, match="matches no linear layer"):
        attach_lora(frozen(), rank=2, alpha=2, targets="attn", seed=0)  # of no layer the whole path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "("}, r"lora\.targets = '\(': must be all-linear, attention or a regular expression"),
        ({"targets": ""}, r"lora\.targets = ''"),
        ({"variant": "loha"}, r"lora\.variant = 'loha': must be one of lora, rslora, dora"),
        ({"format": "a1111"}, r"lora\.format = 'a1111': must be one of diffusers, kohya"),
        ({"variant": "dora", "format": "kohya"}, r"a DoRA is exported in the diffusers layout only"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LoraSettings(**settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["rslora", "dora"])
def test_a_new_lora_changes_no_weight(frozen, variant, dtype):
    transformer = frozen().to(dtype)
    before = {name: p.clone() for name, p in transformer.named_parameters()}
    attach_lora(transformer, rank=4, alpha=8, targets="all-linear", presets=TARGETS, seed=0, variant=variant)
    after = merged(transformer, ADAPTER, frozen().to(dtype))
    for name, p in after.named_parameters():
        torch.testing.assert_close(p, before[name], rtol=1e-6, atol=0)


def test_rslora_is_scaled_by_the_root_of_its_rank(frozen, base):
    transformer = frozen()
    lora = trained(transformer, "rslora", rank=16)
    after = merged(transformer, ADAPTER, frozen())
    module = "transformer_blocks.0.ff.net.2"
    a, b = (lora[f"{module}.lora_{half}.weight"] for half in "AB")
    expected = base.get_submodule(module).weight + ALPHA / 4 * b @ a
    torch.testing.assert_close(after.get_submodule(module).weight, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_the_file_makes_comfyuis_weights_those_of_the_trainer(frozen, base, variant):
    transformer = frozen()
    tensors = file_tensors(trained(transformer, variant), ALPHA, variant=variant, network=transformer)
    x = torch.randn(5, 160)
    modules = {n.removeprefix("transformer.").removesuffix(".alpha") for n in tensors if n.endswith(".alpha")}
    assert len(modules) == 12 + 5
    for module in modules:
        layer = base.get_submodule(module)
        inputs = x[:, : layer.in_features]
        change = transformer.get_submodule(module)(inputs) - layer(inputs)
        assert change.abs().max() > 1
        expected = nn.functional.linear(inputs, delta_of_file(tensors, module, layer.weight))
        torch.testing.assert_close(change, expected, rtol=1e-5, atol=1e-4)  # of numbers up to 500


def test_a_dora_comes_back_from_its_file_and_a_lora_becomes_one(frozen, tmp_path):
    """A file with lengths gives them back; one without changes every weight as it did."""
    transformer = frozen()
    lora = trained(transformer, "dora")
    save_file(file_tensors(lora, ALPHA, variant="dora", network=transformer), tmp_path / "dora.safetensors")
    other = frozen()
    again = attach_lora(other, rank=4, alpha=3.0, targets="all-linear", presets=TARGETS, seed=9, variant="dora")
    start_from(tmp_path / "dora.safetensors", other, ADAPTER, again, lora_names)
    ours, theirs = (merged(t, ADAPTER, frozen()).state_dict() for t in (transformer, other))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=0, atol=5e-6)

    file, added = write("diffusers", frozen(), rank=4)
    save_file(file, tmp_path / "lora.safetensors")
    start_from(tmp_path / "lora.safetensors", other, ADAPTER, again, lora_names)
    before, after = frozen().state_dict(), merged(other, ADAPTER, frozen()).state_dict()
    for module, delta in added.items():
        name = f"{module}.weight"
        torch.testing.assert_close(after[name] - before[name], delta, rtol=0, atol=1e-6)


def test_dora_on_weights_that_are_stored_otherwise_is_refused(frozen):
    class Packed(nn.Linear):
        pass

    transformer = frozen()
    transformer.transformer_blocks[0].ff.net[2] = Packed(128, 32)
    message = r"'dora': the weights of transformer_blocks\.0\.ff\.net\.2 are stored in Packed"
    with pytest.raises(LoraError, match=message):
        attach_lora(transformer, rank=2, alpha=2, targets="all-linear", presets=TARGETS, seed=0, variant="dora")


@pytest.mark.parametrize(("variant", "layout"), [("dora", "diffusers"), ("rslora", "kohya")])
def test_a_run_is_kept_and_goes_on_as_if_it_had_not_stopped(config_file, tmp_path, variant, layout):
    """Weights, average and optimiser of every kind of parameter; and the file starts another run."""

    def config(folder, iterations, *more):
        settings = [f"run.folder={str(tmp_path / folder)!r}", f"run.iterations={iterations}", "run.save_every=1"]
        lora = [f"lora.variant={variant!r}", f"lora.format={layout!r}", "lora.targets='.*(to_q|proj_mlp|ff.net.2)'"]
        optimizer = ["optimizer.warmup=0", "optimizer.learning_rate=0.01"]
        return load_config(config_file(), [*settings, *lora, *optimizer, *more])

    start_run(config("whole", 2))
    start_run(config("parts", 1))
    start_run(config("parts", 2), resume=True)
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint") for name in ("whole", "parts"))
    for kind in ("lora", "average", "optimizer"):
        tensors = getattr(whole, kind)
        assert tensors.keys() == getattr(parts, kind).keys()
        assert all(torch.equal(t, getattr(parts, kind)[name]) for name, t in tensors.items())
    assert any("magnitude" in name for name in whole.lora) == (variant == "dora")
    first = load_checkpoint(tmp_path / "parts" / "checkpoint")
    assert json.loads(json.dumps(first.settings))["lora"]["format"] == layout
    file = load_file(tmp_path / "whole" / LORA)
    assert any(re.search(r"lora_unet_\w+\.lora_up" if layout == "kohya" else "dora_scale", name) for name in file)
    path = str(tmp_path / "whole" / LORA)
    _, setup = start_run(config("next", 1, f"lora.start={path!r}", "optimizer.learning_rate=1e-12"))
    for name, weight in whole.average.items():
        if layout == "diffusers":
            torch.testing.assert_close(setup.lora[name], weight, rtol=0, atol=1e-5)
