"""Every kind of file that a FLUX transformer comes in loads to the same model, and to no more memory than it takes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import FluxTransformer2DModel
from flux_files import FP8, PREFIX, original_transformer, scaled, stored_as, transformer_of, write
from original_names import original_layout

from trainer.models.files.source import ModelError, resolve
from trainer.models.files.weights import complaint
from trainer.models.flux1.single_file import configuration, transformer_pieces
from trainer.models.flux1.transformer import load_transformer

LAYOUTS = ["original", "prefixed", "checkpoint", "diffusers", "folder", "shards"]


def load(path: Path, dtype: torch.dtype = torch.float32, **options) -> FluxTransformer2DModel:
    return load_transformer(resolve(str(path)), dtype=dtype, **options)


def velocity(model: FluxTransformer2DModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    config = model.config
    random = lambda *shape: torch.randn(*shape, generator=generator).to(model.dtype)  # noqa: E731
    with torch.no_grad():
        return model(
            hidden_states=random(2, 4, 64),
            timestep=random(2).abs(),
            guidance=torch.full((2,), 3.5) if config.guidance_embeds else None,
            encoder_hidden_states=random(2, 3, config.joint_attention_dim),
            pooled_projections=random(2, config.pooled_projection_dim),
            txt_ids=torch.zeros(3, 3),
            img_ids=torch.arange(12.0).reshape(4, 3),
            return_dict=False,
        )[0]


@pytest.mark.parametrize("kind", ["flux_dev", "flux_schnell"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, *FP8.values()], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_output_of_the_rounded_model(layout, dtype, kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    expected = transformer_of(folder)
    for parameter in expected.parameters():
        parameter.data = parameter.data.to(dtype).float()
    loaded = load(stored_as(layout, folder, tmp_path / "model", dtype))
    assert torch.equal(velocity(loaded), velocity(expected))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in loaded.parameters())


def test_scaled_fp8_is_the_8_bit_number_times_its_scale(flux_dev, tmp_path):
    stored, meant = scaled(original_transformer(flux_dev))
    loaded = load(write(tmp_path / "scaled.safetensors", stored))
    assert torch.equal(velocity(loaded), velocity(load(write(tmp_path / "meant.safetensors", meant))))
    keys = meant["double_blocks.0.txt_attn.qkv.weight"].chunk(3)[1]  # the fused projection's one scale is each part's
    assert torch.equal(loaded.transformer_blocks[0].attn.add_k_proj.weight, keys)
    newer = {
        n.replace("scale_weight", "weight_scale").replace("scale_input", "input_scale"): t for n, t in stored.items()
    }
    assert torch.equal(velocity(load(write(tmp_path / "newer.safetensors", newer))), velocity(loaded))


def test_put_gets_every_weight_as_it_is_stored_with_its_scale(flux_dev, tmp_path):
    stored, _ = scaled({PREFIX + n: t for n, t in original_transformer(flux_dev).items()}, PREFIX + "scaled_fp8")
    seen, prepared = {}, []

    def put(module, name, tensor, scale):
        seen[name] = (tensor.dtype, tensor.shape, scale)

    def keep(module):
        prepared.append({p.device.type for p in module.parameters()})
        return put

    model = load(write(tmp_path / "scaled.safetensors", stored), ready=keep)
    assert prepared == [{"meta"}]
    assert {name: shape for name, (_, shape, _) in seen.items()} == {n: p.shape for n, p in model.named_parameters()}
    for name, (dtype, shape, scale) in seen.items():
        eight = len(shape) == 2
        assert dtype == (torch.float8_e4m3fn if eight else torch.float32), name
        assert (scale is not None) == eight, name
        assert scale is None or (scale.shape == () and scale.dtype == torch.float32)


@pytest.mark.parametrize(("guidance", "tensors"), [(True, 780), (False, 776)])
def test_all_tensors_of_the_published_sizes_find_their_place(guidance, tensors):
    """flux1-dev.safetensors has 780 tensors, flux1-schnell.safetensors 776."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=guidance)
    original = original_layout(model)
    assert len(original) == tensors
    for names in (original, model.state_dict()):
        stored = {n: SimpleNamespace(name=n, shape=tuple(t.shape), dtype="BF16") for n, t in names.items()}
        pieces = transformer_pieces(stored)
        assert complaint(model, pieces) == ""
        assert len({piece.stored.name for piece in pieces.values()}) == len(names)
        assert all(
            model.config[key] == value or key == "axes_dims_rope" for key, value in configuration(pieces).items()
        )
        assert tuple(configuration(pieces)["axes_dims_rope"]) == model.config.axes_dims_rope


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (
            ["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.label_emb.0.0.weight"],
            "an SDXL UNet",
        ),
        (["model.diffusion_model.input_blocks.0.0.weight"], "a Stable Diffusion UNet"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "a Stable Diffusion 3 transformer"),
        (["decoder.conv_in.weight"], "a VAE"),
        (["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"], "a LoRA"),
        (["transformer.single_transformer_blocks.0.proj_mlp.lora_A.weight"], "a LoRA"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a CLIP text encoder"),
        (["encoder.block.0.layer.0.SelfAttention.q.weight"], "a T5 text encoder"),
        (["double_stream_modulation_img.lin.weight"], "a FLUX.2 transformer"),
        (["distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"], "a Chroma transformer"),
        (["something.weight"], "of a kind that is not known"),
    ],
)
def test_another_kind_of_file_is_named(names, what, tmp_path):
    path = write(tmp_path / "other.safetensors", {name: torch.zeros(1) for name in names})
    with pytest.raises(
        ModelError, match=f"other.safetensors is not a FLUX transformer but {what} .*: choose FLUX.1-dev"
    ):
        load(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-100], "is not a whole safetensors file"),
        (lambda data: data[:1000], "is not a whole safetensors file"),
        (lambda data: b"", "it is empty"),
        (lambda data: b"<!DOCTYPE html><title>Log in</title>", "it is a web page"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer"),
        (lambda data: b"PK\x03\x04" + bytes(100), "it is a PyTorch checkpoint"),
        (lambda data: b"GGUF" + bytes(100), "it is a GGUF file"),
    ],
)
def test_a_damaged_file_is_told_in_one_line_with_the_remedy(change, reason, flux_schnell, tmp_path):
    path = write(tmp_path / "flux.safetensors", original_transformer(flux_schnell))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match=f"flux.safetensors .*{reason}.*: download it again") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("single_blocks.0.linear1.bias"), "lacks 4 weights, the first is single_transformer_blocks.0"),
        (lambda t: t.update({"txt_in.bias": torch.zeros(7)}), "has 1 tensors that do not fit.*context_embedder.bias"),
        (
            lambda t: t.update({"txt_in.bias": t["txt_in.bias"].to(torch.uint8)}),
            "keeps 'txt_in.bias' as U8, which is not",
        ),
        (
            lambda t: t.update({"txt_in.scale_weight": torch.ones(31)}),
            r"keeps .* as F32 with scales of the shape \[31\]",
        ),
        (lambda t: t.update({"img_in.weight": torch.zeros(32, 128)}), "takes 128 channels, FLUX takes 64"),
    ],
)
def test_a_flux_that_is_not_plain_is_refused_before_it_is_read(change, reason, flux_dev, tmp_path):
    tensors = original_transformer(flux_dev)
    change(tensors)
    with pytest.raises(ModelError, match=f"no plain FLUX transformer: it {reason}"):
        load(write(tmp_path / "flux.safetensors", tensors), ready=pytest.fail)


def test_a_lost_shard_is_named(flux_dev, tmp_path):
    folder = stored_as("shards", flux_dev, tmp_path / "model", torch.float32)
    next((folder / "transformer").glob("*-00002-of-*")).unlink()
    with pytest.raises(ModelError, match=r"its transformer does not load .*00002-of-00002.*no such file"):
        load(folder)


def test_a_hub_model_is_downloaded_and_goes_on_as_a_folder(flux_dev, monkeypatch):
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(flux_dev)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    loaded = load_transformer(resolve("hub:owner/name"), dtype=torch.float32)
    assert torch.equal(velocity(loaded), velocity(transformer_of(flux_dev)))
    assert asked == [("owner/name", ["transformer/*.json", "transformer/*.safetensors"])]
