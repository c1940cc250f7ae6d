"""A LoRA's strength may be in its file's header: it begins as diffusers and PEFT load it. What is no LoRA is named."""

import json

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from lora_files import merged, write
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from trainer.engine.setup import add_lora
from trainer.models.files.source import resolve
from trainer.models.flux1 import lora_names
from trainer.models.flux1.family import load_flux
from trainer.models.lora.attach import ADAPTER
from trainer.models.lora.start import read_factors
from trainer.models.lora.targets import LoraError, linear_layers
from trainer.models.storage.placement import Placement
from trainer.settings.config import LoraSettings

TARGETS = ["to_q", "to_k", "to_v", "proj_mlp"]
LAYERS = r"(single_)?transformer_blocks\.0\.(attn\.to_[qkv]|proj_mlp)"


@pytest.fixture
def frozen(flux_dev):
    """Loads the random FLUX anew."""
    return lambda: FluxTransformer2DModel.from_pretrained(flux_dev, subfolder="transformer")


@pytest.fixture
def begun(flux_dev):
    """The weights that a file's LoRA makes of the model here."""

    def begin(path, base, rank=4):
        policy = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.float32), guidance=3.5)
        policy.adapter = ADAPTER
        add_lora(policy, LoraSettings(rank=rank, alpha=6.0, targets=LAYERS, start=str(path)), 0)
        return merged(policy.network, ADAPTER, base).state_dict()

    return begin


def trained(model, **config):
    """The model with a LoRA by peft, of random halves."""
    model.add_adapter(LoraConfig(target_modules=TARGETS, **config))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def by_diffusers(path, flux_dev):
    """The weights that diffusers makes of the model with a file."""
    pipe = FluxPipeline.from_pretrained(flux_dev)
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return pipe.transformer.state_dict()


def assert_same(found, expected, base):
    """To the rounding of float32; and the LoRA does something."""
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)
    assert sum(not torch.equal(expected[name], weight) for name, weight in base.items()) >= 4


SINGLE = "single_transformer_blocks.0.attn.to_k"
CONFIGS = {
    "alpha of four ranks": {"r": 4, "lora_alpha": 16},
    "alpha by layers": {"r": 4, "lora_alpha": 4, "alpha_pattern": {"to_q": 12, SINGLE: 2}},
    "the first that fits": {"r": 4, "lora_alpha": 4, "alpha_pattern": {SINGLE: 2, "to_k": 12}},
    "rank by layers": {"r": 4, "lora_alpha": 8, "rank_pattern": {"to_v": 2}, "alpha_pattern": {"to_v": 8}},
    "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "whole path": {"r": 4, "lora_alpha": 4, "alpha_pattern": {"^transformer_blocks.0.attn.to_q": 32}},
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("component", ["transformer.", ""])
def test_the_header_of_diffusers_gives_the_strength_that_diffusers_gives(
    case, component, frozen, begun, flux_dev, tmp_path
):
    model = trained(frozen(), **CONFIGS[case])
    if component:  # as a pipeline saves it, and SimpleTuner
        layers, config = get_peft_model_state_dict(model), model.peft_config["default"].to_dict()
        FluxPipeline.save_lora_weights(
            tmp_path, layers, transformer_lora_adapter_metadata={**config, "target_modules": TARGETS}
        )
    else:  # as the transformer saves it
        model.save_lora_adapter(tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    if component:
        expected = by_diffusers(path, flux_dev)
    else:
        base = frozen()
        base.load_lora_adapter(str(tmp_path), weight_name=path.name, prefix=None)
        base.fuse_lora()
        base.unload_lora()
        expected = base.state_dict()
    assert_same(begun(path, frozen()), expected, frozen().state_dict())


def test_what_peft_writes_beside_its_file_counts(frozen, begun, tmp_path):
    model = get_peft_model(frozen(), LoraConfig(r=4, lora_alpha=16, target_modules=TARGETS, init_lora_weights=False))
    model.save_pretrained(tmp_path)
    expected = PeftModel.from_pretrained(frozen(), tmp_path).merge_and_unload().state_dict()
    assert_same(begun(tmp_path / "adapter_model.safetensors", frozen()), expected, frozen().state_dict())


def factors(tensors, tmp_path, model, metadata=None):
    save_file(tensors, tmp_path / "lora.safetensors", metadata)
    sizes = {name: (layer.out_features, layer.in_features) for name, layer in linear_layers(model)}
    return read_factors(tmp_path / "lora.safetensors", sizes, lora_names)


@pytest.mark.parametrize(("said", "scale"), [("16", 4.0), ("2.0", 0.5), ("-4", -1.0), ("None", 1.0), ("Dynamic", 1.0)])
def test_kohyas_alpha_in_the_header_counts_if_the_layer_has_none(said, scale, frozen, tmp_path):
    file, _ = write("ai-toolkit", frozen(), rank=4)
    found = factors(file, tmp_path, frozen(), {"ss_network_alpha": said})
    assert {f.scale for f in found.values()} == {scale}
    with_own, _ = write("kohya", frozen(), rank=4)
    assert {f.scale for f in factors(with_own, tmp_path, frozen(), {"ss_network_alpha": said}).values()} == {
        alpha / 4 for alpha in (1.5, 2.5, 3.5)
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[" * 100_000, "its lora_adapter_metadata is no JSON"),
        ("{", "its lora_adapter_metadata is no JSON"),
        ('{"lora_alpha": NaN}', "its header's alpha is nan: it must be a number"),
        ('{"lora_alpha": "16"}', "its header's alpha is '16': it must be a number"),
        ('{"lora_alpha": 1e400}', "its header's alpha is inf"),
        ('{"lora_alpha": 4, "alpha_pattern": [1]}', r"its alpha_pattern is \[1\]: it must be a table"),
        ('{"lora_alpha": 4, "alpha_pattern": {"(a+)+b": 1}}', "is an expression, which is not run"),
        ('{"lora_alpha": 4, "alpha_pattern": {"to_q": true}}', "its header's alpha is True"),
    ],
)
def test_a_header_that_gives_no_number_is_told_in_one_line(config, message, frozen, tmp_path):
    file, _ = write("diffusers", frozen(), rank=4)
    with pytest.raises(LoraError, match=message) as caught:
        factors(file, tmp_path, frozen(), {"lora_adapter_metadata": config})
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_a_header_without_an_alpha_changes_nothing(frozen, tmp_path):
    file, _ = write("diffusers", frozen(), rank=4)
    for config in ({}, [], {"lora_alphas": 3}, "text"):
        found = factors(file, tmp_path, frozen(), {"lora_adapter_metadata": json.dumps(config)})
        assert {f.scale for f in found.values()} == {1.0}


LAYER = "transformer.transformer_blocks.0.attn.to_q"
UP, DOWN = f"{LAYER}.lora_B.weight", f"{LAYER}.lora_A.weight"
HALVES = {UP: torch.ones(32, 4), DOWN: torch.ones(4, 32)}


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2], ids=str
)
def test_a_file_in_any_floating_type_is_its_numbers(dtype, frozen, tmp_path):
    exact = {name: torch.randn(tensor.shape).to(dtype) for name, tensor in HALVES.items()}
    (found,) = factors({**exact, f"{LAYER}.alpha": torch.tensor(2.0).to(dtype)}, tmp_path, frozen()).values()
    assert torch.equal(found.up, exact[UP].float())
    assert torch.equal(found.down, exact[DOWN].float())
    assert found.scale == 0.5


@pytest.mark.parametrize(("alpha", "scale"), [(0.0, 0.0), (-8.0, -2.0), (torch.tensor([8]), 2.0)])
def test_alphas_of_any_sign_are_what_they_say(alpha, scale, frozen, tmp_path):
    (found,) = factors({**HALVES, f"{LAYER}.alpha": torch.as_tensor(alpha)}, tmp_path, frozen()).values()
    assert found.scale == scale


def broken(name, value, dtype=torch.float32):
    tensor = HALVES.get(name, torch.ones(())).clone()
    tensor.view(-1)[-1] = value
    return {**HALVES, name: tensor.to(dtype)}


ALPHA = f"{LAYER}.alpha"
FAULTS = [
    (broken(DOWN, float("nan")), f"{DOWN} holds NaN or infinity in 1 of 128 numbers"),
    (broken(UP, float("-inf")), f"{UP} holds NaN or infinity in 1 of 128 numbers"),
    (broken(UP, float("inf"), torch.bfloat16), f"{UP} holds NaN or infinity"),
    (broken(DOWN, float("nan"), torch.float8_e4m3fn), f"{DOWN} holds NaN or infinity"),
    ({**HALVES, UP: torch.full((32, 4), 1e300, dtype=torch.float64)}, "holds NaN or infinity in 128 of 128"),
    (broken(ALPHA, float("nan")), f"{ALPHA} holds NaN or infinity in 1 of 1 numbers"),
    ({**HALVES, ALPHA: torch.ones(4)}, f"{ALPHA} has 4 numbers and must have one"),
    ({**HALVES, UP: torch.ones(32, 4, dtype=torch.int8)}, f"{UP} is stored as torch.int8: only floating numbers"),
    ({**HALVES, UP: torch.ones(32, 4, dtype=torch.complex64)}, f"{UP} is stored as torch.complex64"),
    ({UP: torch.ones(32, 0), DOWN: torch.ones(0, 32)}, "has rank 0: the file is damaged"),
    ({UP: torch.ones(32, 4)}, "lacks its down half"),
    ({DOWN: torch.ones(4, 32)}, "lacks its up half"),
    ({**HALVES, UP: torch.ones(())}, r"has the shapes \(\) and \(4, 32\)"),
    ({**HALVES, DOWN: torch.ones(())}, r"has the shapes \(32, 4\) and \(\)"),
    ({ALPHA: torch.ones(())}, "lacks its down half"),
    ({**HALVES, f"{LAYER}.lora_up.weight": torch.ones(32, 4)}, "has two halves"),
    ({f"{LAYER}.lokr_w1": torch.ones(4, 4)}, "is a LoKr, which cannot be gone on from"),
    ({f"{LAYER}.lokr_w2_a": torch.ones(4, 4)}, "is a LoKr"),
    ({f"{LAYER}.hada_w1_a": torch.ones(4, 4)}, "is a LoHa"),
    ({f"{LAYER}.oft_blocks": torch.ones(4, 4)}, "is an OFT or BOFT"),
    ({**HALVES, f"{LAYER}.lora_mid.weight": torch.ones(4, 4)}, "is a LoCon with a Tucker core"),
    ({**HALVES, f"{LAYER}.lora_magnitude_vector": torch.ones(32)}, "is a DoRA in PEFT's names"),
    ({**HALVES, f"{LAYER}.lora_B.bias": torch.ones(32)}, "is a LoRA with biases"),
    ({f"{LAYER}.diff": torch.ones(32, 32)}, "is a difference of whole weights"),
    ({**HALVES, f"{LAYER}.diff_b": torch.ones(32)}, "is a difference of whole weights"),
    ({**HALVES, "emb_params": torch.ones(2, 32)}, "is a LoRA with trained embeddings"),
    ({f"{LAYER}.lora_embedding_A": torch.ones(2, 32)}, "is a LoRA of embeddings"),
    ({"text_encoders.clip_l.transformer.a.lora_A.weight": torch.ones(2, 2)}, "but for the text encoders alone"),
    ({"x" * 100_000: torch.ones(1)}, "is not a LoRA for this FLUX: the first name that fits no layer is xxx"),
]


@pytest.mark.parametrize(("tensors", "message"), FAULTS, ids=range(len(FAULTS)))
def test_what_is_no_sound_lora_is_refused_at_the_door_by_name(tensors, message, frozen, tmp_path):
    with pytest.raises(LoraError, match=message) as caught:
        factors(tensors, tmp_path, frozen())
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_an_alpha_that_makes_the_lora_infinite_is_told(begun, frozen, tmp_path):
    save_file({**HALVES, ALPHA: torch.tensor(3e38)} | {UP: torch.full((32, 4), 1e10)}, tmp_path / "lora.safetensors")
    assert load_file(tmp_path / "lora.safetensors")[UP].isfinite().all()
    with pytest.raises(LoraError, match="is infinite: it is damaged"):
        begun(tmp_path / "lora.safetensors", frozen())
