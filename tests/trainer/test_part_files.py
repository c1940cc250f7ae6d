"""Autoencoder and text encoders in files of their own, or in the transformer's, are those of the folder."""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from flux_files import FP8, PREFIX, clip_tensors, original_transformer, original_vae, part, scaled, write
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from trainer.errors import ConfigError
from trainer.models.files.source import ModelError, ModelSource, resolve
from trainer.models.files.weights import Piece, complaint
from trainer.models.flux1 import parts
from trainer.models.flux1.family import load_flux
from trainer.models.flux1.parts import PUBLISHED, load_encoders, load_vae
from trainer.models.flux1.text import encode_prompts
from trainer.models.flux1.vae_names import diffusers_vae_names
from trainer.models.storage.placement import Placement
from trainer.settings.config_file import load_config
from trainer.training.prepare import prepare

PROMPTS = ["a red apple", "two blue fishes in a bowl"]
CPU = Placement("cpu", torch.float32)


@pytest.fixture
def small(flux_dev, monkeypatch):
    """Single files are taken for those of the small random FLUX."""
    monkeypatch.setattr(parts, "PUBLISHED", ModelSource("small", str(flux_dev), hub=False))
    return flux_dev


@pytest.fixture
def files(small, tmp_path):
    """The small FLUX in four files."""
    return {
        "path": str(write(tmp_path / "flux.safetensors", original_transformer(small))),
        "vae": str(write(tmp_path / "ae.safetensors", original_vae(AutoencoderKL.from_pretrained(small / "vae")))),
        "text_encoders": (
            str(write(tmp_path / "t5xxl.safetensors", part(small, "text_encoder_2"))),
            str(write(tmp_path / "clip_l.safetensors", clip_tensors(small))),
        ),
    }


def embeddings(source: ModelSource, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = encode_prompts(source, PROMPTS, Placement("cpu", dtype), tokens=12)
    return encoded.tensors["embeddings"], encoded.tensors["pooled"]


def same(one: ModelSource, other: ModelSource, dtype: torch.dtype = torch.float32) -> bool:
    return all(map(torch.equal, embeddings(one, dtype), embeddings(other, dtype)))


def test_the_files_are_the_folder(files, small):
    source, folder = resolve(files["path"], files["vae"], files["text_encoders"]), resolve(str(small))
    assert same(source, folder)
    ours, theirs = (load_flux(s, Placement("cpu", torch.float32), guidance=3.5) for s in (source, folder))
    z = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.vae.decode(z), theirs.vae.decode(z))
    assert ours.resolution_shift == theirs.resolution_shift
    assert ours.vae.vae.state_dict().keys() == theirs.vae.vae.state_dict().keys()


def test_a_whole_checkpoint_needs_no_other_file(small, tmp_path):
    vae = original_vae(AutoencoderKL.from_pretrained(small / "vae"))
    whole = {
        **{PREFIX + name: t for name, t in original_transformer(small).items()},
        **{f"vae.{name}": t for name, t in vae.items()},
        **{f"text_encoders.clip_l.transformer.{name}": t for name, t in clip_tensors(small).items()},
        **{f"text_encoders.t5xxl.transformer.{name}": t for name, t in part(small, "text_encoder_2").items()},
        "text_encoders.clip_l.logit_scale": torch.zeros(()),
    }
    source, folder = resolve(str(write(tmp_path / "all.safetensors", whole))), resolve(str(small))
    source.require_vae()
    source.require_encoders()
    assert same(source, folder)
    ours, theirs = (load_flux(s, Placement("cpu", torch.float32), guidance=3.5) for s in (source, folder))
    z = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.vae.decode(z), theirs.vae.decode(z))


def test_files_take_the_place_of_a_folders_parts(files, small, flux_schnell):
    weights = AutoencoderKL.from_pretrained(small / "vae")
    changed = {name: 2 * t for name, t in weights.state_dict().items()}
    save_file(changed, files["vae"])  # under diffusers' names
    loaded = load_vae(resolve(str(flux_schnell), files["vae"]), dtype=torch.float32)
    assert all(torch.equal(t, changed[name]) for name, t in loaded.state_dict().items())
    assert same(resolve(str(flux_schnell), "", files["text_encoders"]), resolve(str(small)))


@pytest.mark.parametrize("kind", FP8)
def test_encoders_in_plain_fp8_are_the_rounded_ones(kind, files, small, tmp_path):
    rounded = {}
    for name, tensors in (("text_encoder", clip_tensors(small)), ("text_encoder_2", part(small, "text_encoder_2"))):
        eight = {n: t.to(FP8[kind]) for n, t in tensors.items()}
        rounded[name] = (
            str(write(tmp_path / f"{name}.safetensors", eight)),
            str(write(tmp_path / f"{name}_wide.safetensors", {n: t.float() for n, t in eight.items()})),
        )
    eight, wide = (resolve(files["path"], "", files_) for files_ in zip(*rounded.values(), strict=True))
    assert same(eight, wide)
    assert not same(eight, resolve(str(small)))


def test_a_scaled_t5_is_the_8_bit_number_times_its_scale(files, small, tmp_path):
    stored, meant = scaled(part(small, "text_encoder_2"))
    stored["spiece_model"] = torch.zeros(5, dtype=torch.uint8)
    encoders = [write(tmp_path / "stored.safetensors", stored), write(tmp_path / "meant.safetensors", meant)]
    clip = files["text_encoders"][1]
    one, other = (resolve(files["path"], "", (clip, str(t5))) for t5 in encoders)
    assert same(one, other)


def test_in_float16_the_layers_that_overflow_stay_wide_as_transformers_does(files, small):
    source, folder = resolve(files["path"], "", files["text_encoders"]), resolve(str(small))
    ours, theirs = (
        load_encoders(s, Placement("cpu", torch.float16))["text_encoder_2"].state_dict() for s in (source, folder)
    )
    assert {n: t.dtype for n, t in ours.items()} == {n: t.dtype for n, t in theirs.items()}
    assert {t.dtype for t in ours.values()} == {torch.float16, torch.float32}


def test_the_autoencoders_names_are_diffusers_own_conversion(flux_dev):
    vae = AutoencoderKL.from_pretrained(flux_dev / "vae")
    original = original_vae(vae)
    theirs = convert_ldm_vae_checkpoint(dict(original), vae.config)
    stored = {n: Piece(SimpleNamespace(read=lambda rows, t=t: t), tuple(t.shape)) for n, t in original.items()}
    ours = {n: piece.read() for n, piece in diffusers_vae_names(stored, levels=4).items()}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(t, theirs[n]) for n, t in ours.items())


def test_what_ships_is_of_the_published_sizes():
    """Parameters of FLUX.1's autoencoder, CLIP-L and T5-XXL encoder; every name of ae.safetensors has its place."""
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(PUBLISHED.folder("vae")))
        clip = CLIPTextModel(CLIPTextConfig.from_pretrained(PUBLISHED.folder("text_encoder")))
        t5 = T5EncoderModel(T5Config.from_pretrained(PUBLISHED.folder("text_encoder_2")))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (vae, clip, t5)]
    assert sizes == [83_819_683, 123_060_480, 4_762_310_656]
    original = original_vae(vae)
    assert len(original) == 244
    stored = {n: Piece(SimpleNamespace(dtype="F32"), tuple(t.shape)) for n, t in original.items()}
    assert complaint(vae, diffusers_vae_names(stored, levels=4)) == ""
    assert (vae.config.scaling_factor, vae.config.shift_factor) == (0.3611, 0.1159)


def test_the_tokenizers_that_ship_are_clips_and_t5s():
    clip = PUBLISHED.load(CLIPTokenizer, "tokenizer")
    assert clip("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert clip.model_max_length == 77
    t5 = PUBLISHED.load(T5TokenizerFast, "tokenizer_2")
    text = "Studies have been shown that owning a dog is good for you"
    assert t5(text).input_ids == [6536, 43, 118, 2008, 24, 293, 53, 3, 9, 1782, 19, 207, 21, 25, 1]


def test_what_a_single_file_lacks_is_told_by_the_setting(files, config_file):
    text = f"path = {files['path']!r}\ndevice = 'cpu'\ntext_tokens = 12\n"
    with pytest.raises(ConfigError, match=r"model.vae is not set and .*flux.safetensors holds no autoencoder"):
        load_config(config_file(model=text))
    text += f"vae = {files['vae']!r}\n"
    with pytest.raises(ConfigError, match=r"model.text_encoders is not set .*clip_l.safetensors and t5xxl_fp16"):
        load_config(config_file(model=text))
    with pytest.raises(ConfigError, match=r"model.text_encoders = 'nowhere.safetensors': there is no file"):
        load_config(config_file(model=text + "text_encoders = ['nowhere.safetensors']"))


def test_a_run_of_files_beside_the_settings_is_prepared(files, config_file):
    names = [file.rpartition("/")[2] for file in files["text_encoders"]]
    text = f"path = 'flux.safetensors'\nvae = 'ae.safetensors'\ntext_encoders = {json.dumps(names)}"
    setup = prepare(load_config(config_file(model=f"{text}\ndevice = 'cpu'\ntext_tokens = 12")))
    assert len(setup.conditioning) == 3


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (1, r"lacks FLUX.1's T5-XXL encoder \(t5xxl_fp16.safetensors\): .*clip_l.safetensors is a CLIP text encoder"),
        (0, r"lacks FLUX.1's CLIP-L \(clip_l.safetensors\): .*t5xxl.safetensors is a T5 text encoder"),
    ],
)
def test_a_missing_encoder_is_named(only, message, files):
    with pytest.raises(ModelError, match=message):
        load_encoders(resolve(files["path"], "", [files["text_encoders"][only]]), CPU)


def test_an_encoder_or_autoencoder_of_another_size_is_refused(files, monkeypatch):
    """What ships describes the published models, which the small files are not."""
    monkeypatch.setattr(parts, "PUBLISHED", PUBLISHED)
    source = resolve(files["path"], files["vae"], files["text_encoders"])
    with pytest.raises(ModelError, match=r"clip_l.safetensors \(a CLIP text encoder\) does not fit FLUX.1's CLIP-L"):
        load_encoders(source, CPU)
    with pytest.raises(ModelError, match=r"ae.safetensors \(a VAE\) does not fit FLUX.1's autoencoder"):
        load_vae(source, dtype=torch.float32)
