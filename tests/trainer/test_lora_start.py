"""Going on from a LoRA that another program wrote: every weight changes by exactly what the file says."""

import re

import pytest
import torch
from diffusers import FluxTransformer2DModel
from lora_files import FORMATS, FUSED, layers_of, merged, random_lora, write, write_xlabs
from original_names import original_layout
from safetensors.torch import load_file, save_file

from trainer.engine.setup import add_lora
from trainer.models.files.source import resolve
from trainer.models.flux1 import lora_names
from trainer.models.flux1.family import load_flux
from trainer.models.flux1.lora_names import TARGETS
from trainer.models.lora.attach import ADAPTER, attach_lora, set_weights
from trainer.models.lora.export import export_lora, file_tensors
from trainer.models.lora.start import read_factors
from trainer.models.lora.targets import LoraError, linear_layers
from trainer.models.storage.placement import Placement
from trainer.settings.config import LoraSettings


@pytest.fixture
def frozen(flux_dev):
    """Loads the random FLUX anew."""
    return lambda: FluxTransformer2DModel.from_pretrained(flux_dev, subfolder="transformer")


@pytest.fixture
def started(flux_dev, tmp_path):
    """A policy's transformer and LoRA that start from tensors of a file."""

    def start(tensors, seed=0, presets=TARGETS, **settings):
        save_file(tensors, tmp_path / "start.safetensors")
        policy = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.float32), guidance=3.5)
        policy.adapter = ADAPTER
        settings = LoraSettings(**{"rank": 4, "alpha": 6.0, **settings}, start=str(tmp_path / "start.safetensors"))
        return policy.network, add_lora(policy, settings, seed)

    return start


def assert_adds(transformer, base, copy, added):
    """The LoRA on `transformer` adds `added`, by Black Forest Labs' names or diffusers', and nothing else."""
    after = merged(transformer, ADAPTER, copy)
    fused = any(name.startswith((*FUSED, "final_layer")) for name in added)
    named = original_layout if fused else FluxTransformer2DModel.state_dict
    before, after = named(base), named(after)
    for name, weight in before.items():
        expected = added.get(name.removesuffix(".weight"), torch.zeros_like(weight)) if "weight" in name else 0
        torch.testing.assert_close(after[name] - weight, expected + torch.zeros_like(weight), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "variant"), [*((kind, "lora") for kind in FORMATS), ("kohya", "rslora")])
def test_a_lora_in_any_format_adds_what_its_file_says(frozen, started, kind, variant):
    file, added = write(kind, frozen(), rank=4)
    transformer, _ = started(file, variant=variant)
    assert_adds(transformer, frozen(), frozen(), added)


def test_xlabs_loras_leave_the_feed_forward_alone(frozen, started):
    file, added = write_xlabs(frozen(), rank=4)
    transformer, _ = started(file)
    assert_adds(transformer, frozen(), frozen(), added)


def test_the_last_layers_modulation_turns_its_halves(frozen, started):
    """Shift before scale in Black Forest Labs' files, after it in diffusers."""
    weight = original_layout(frozen())["final_layer.adaLN_modulation.1.weight"]
    name = "final_layer.adaLN_modulation.1"
    halves = (".lora_up.weight", ".lora_down.weight")
    file, added = random_lora({name: weight}, "diffusion_model.{}".format, *halves, True, 4)
    transformer, _ = started(file, targets=r"norm_out\.linear")
    assert_adds(transformer, frozen(), frozen(), added)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_key_of_a_full_size_file_is_used(kind, tmp_path):
    """FLUX.1-dev's own layout, on the meta device."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True)
    sizes = {name: (layer.out_features, layer.in_features) for name, layer in linear_layers(model)}
    blocks, called, (up, down), has_alpha = FORMATS[kind]
    file = {}
    for name, weight in layers_of(model, blocks).items():
        file |= {called(name) + up: torch.zeros(len(weight), 1), called(name) + down: torch.zeros(1, weight.shape[1])}
        file |= {f"{called(name)}.alpha": torch.ones(())} if has_alpha else {}
    save_file(file, tmp_path / "full.safetensors")
    factors = read_factors(tmp_path / "full.safetensors", sizes, lora_names)
    assert len(factors) == 19 * (8 + 4) + 38 * (3 + 2)
    assert all((len(f.up), f.down.shape[1]) == sizes[module] for module, f in factors.items())


def test_a_smaller_rank_keeps_the_random_start_of_what_it_lacks(frozen, started):
    """The change is the file's, and the columns that the file has not can still be learnt."""
    file, added = write("diffusers", frozen(), rank=2)
    transformer, lora = started(file, seed=3)
    assert_adds(transformer, frozen(), frozen(), added)
    for name, weight in lora.items():
        rest = weight[2:] if "lora_A" in name else weight[:, 2:]
        assert rest.any() == ("lora_A" in name)


def test_layers_that_the_file_lacks_begin_untrained(frozen, started):
    file, added = write("kohya", frozen(), rank=4)
    kept = {name for name in added if "img_attn" in name}
    flat = tuple(f"lora_unet_{name.replace('.', '_')}." for name in kept)
    transformer, lora = started({name: t for name, t in file.items() if name.startswith(flat)})
    assert_adds(transformer, frozen(), frozen(), {name: added[name] for name in kept})
    assert all(weight.any() for name, weight in lora.items() if "lora_A" in name)


def test_an_own_file_comes_back_bit_for_bit_under_any_alpha(frozen, started):
    lora = attach_lora(frozen(), rank=4, alpha=6.0, targets="all-linear", presets=TARGETS, seed=0)
    weights = {name: torch.randn(p.shape) for name, p in lora.items()}
    _, again = started(file_tensors(weights, 6.0), seed=5)
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    _, other = started(file_tensors(weights, 12.0), seed=5)
    for name in weights:
        assert torch.equal(other[name], weights[name] * (2 if "lora_B" in name else 1))


def test_a_larger_rank_is_refused_unless_zeros_make_it_larger(frozen, started):
    file, added = write("diffusers", frozen(), rank=6)
    with pytest.raises(LoraError, match=r"has rank 6: set lora\.rank to it or above, it was 4"):
        started(file)
    for name, half in file.items():
        if "lora_B" in name:
            half[:, [0, 3]] = 0
            module = name.removeprefix("transformer.").removesuffix(".lora_B.weight")
            added[module] = half @ file[name.replace("lora_B", "lora_A")]
    transformer, _ = started(file)
    assert_adds(transformer, frozen(), frozen(), added)


def test_the_text_encoders_part_is_left_out_with_a_warning(frozen, started, caplog):
    file, added = write("kohya", frozen(), rank=4)
    file["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"] = torch.ones(8, 4)
    transformer, _ = started(file)
    (warning,) = caplog.messages
    assert "1 tensors for the text encoders are left out" in warning
    assert_adds(transformer, frozen(), frozen(), added)


MLP = "lora_unet_double_blocks_0_img_mlp_0"
MODULATION = "lora_unet_double_blocks_0_img_mod_lin"
SAME = "transformer.transformer_blocks.0.ff.net.0.proj"


def without(file, name):
    return {n: t for n, t in file.items() if n != name}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda file: file | {"lora_unet_double_blocks_7_img_mlp_0.alpha": torch.ones(())},
            "the first name that fits no layer is lora_unet_double_blocks_7_img_mlp_0.alpha",
        ),
        (lambda file: file | {f"{MLP}.hada_w1_a": torch.ones(4)}, f"is a LoHa, .* tells is {MLP}.hada_w1_a"),
        (lambda file: without(file, f"{MLP}.lora_down.weight"), f"{MLP} lacks its down half"),
        (
            lambda file: file | {f"{MLP}.lora_up.weight": torch.ones(3, 4)},
            f"{MLP} has the shapes .3, 4. and .4, 32., and this model's layer is 128 x 32",
        ),
        (
            lambda file: (
                file
                | {f"{MODULATION}.lora_up.weight": torch.ones(192, 4)}
                | {f"{MODULATION}.lora_down.weight": torch.ones(4, 32)}
            ),
            "changes 1 layers that lora.targets leaves out, the first is transformer_blocks.0.norm1.linear",
        ),
        (lambda file: file | {f"{MLP}.dora_scale": torch.ones(128, 1)}, "is a DoRA: set lora.variant to 'dora'"),
        (lambda file: file | {f"{MLP}.dora_scale": torch.ones(1, 32)}, f"{MLP} is a DoRA of columns ..1, 32.."),
        (
            lambda file: (
                file | {f"{SAME}.lora_A.weight": torch.ones(4, 32), f"{SAME}.lora_B.weight": torch.ones(128, 4)}
            ),
            "for which the file has another LoRA already",
        ),
        (lambda file: {"lora_te1_layer.alpha": torch.ones(())}, "holds no tensors for a FLUX transformer"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_the_first_reason(frozen, started, edit, message):
    file, _ = write("kohya", frozen(), rank=4)
    with pytest.raises(LoraError, match=message):
        started(edit(file))


def test_a_file_of_another_sort_is_refused(frozen, tmp_path):
    text = tmp_path / "note.safetensors"
    text.write_text("not tensors at all")
    with pytest.raises(LoraError, match="not a whole safetensors file"):
        read_factors(text, {}, lora_names)


@pytest.mark.parametrize("variant", ["lora", "rslora"])
@pytest.mark.parametrize("targets", ["all-linear", "attention", r".*\.to_q|.*proj_mlp", "norm_out.linear|x_embedder"])
def test_the_kohya_layout_says_the_same_as_the_lora(frozen, started, tmp_path, variant, targets):
    settings = {"targets": targets, "variant": variant}
    transformer = frozen()
    lora = attach_lora(transformer, rank=4, alpha=6.0, seed=0, presets=TARGETS, **settings)
    generator = torch.Generator().manual_seed(2)
    set_weights(lora, {name: 0.3 * torch.randn(p.shape, generator=generator) for name, p in lora.items()})
    tensors = file_tensors(lora, 6.0, variant=variant, names=lora_names)
    assert all(re.fullmatch(r"lora_unet_\w+\.(lora_down\.weight|lora_up\.weight|alpha)", name) for name in tensors)
    path = export_lora(tmp_path / "kohya.safetensors", tensors, {})
    back, _ = started(load_file(path), **settings)
    ours, theirs = (merged(t, ADAPTER, frozen()).state_dict() for t in (transformer, back))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=0, atol=1e-6)
    # and by the file alone
    added = {}
    for name, up in tensors.items():
        if name.endswith("lora_up.weight"):
            layer = name.removesuffix(".lora_up.weight")
            down = tensors[f"{layer}.lora_down.weight"]
            added[layer] = tensors[f"{layer}.alpha"] / len(down) * up @ down
    base, after = original_layout(frozen()), original_layout(merged(transformer, ADAPTER, frozen()))
    changed = {name.removesuffix(".weight") for name in base if not torch.equal(base[name], after[name])}
    assert {f"lora_unet_{name.replace('.', '_')}" for name in changed} == added.keys()
    for name in changed:
        difference = after[f"{name}.weight"] - base[f"{name}.weight"]
        torch.testing.assert_close(added[f"lora_unet_{name.replace('.', '_')}"], difference, rtol=0, atol=1e-6)
