"""Single files under Black Forest Labs' names load to the same transformer as the diffusers folder."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file

from trainer.models.single_file import load_single_file
from trainer.models.source import ModelError


def original_layout(model: FluxTransformer2DModel) -> dict[str, torch.Tensor]:
    """The weights as black-forest-labs/flux names and fuses them, written down module by module."""
    w = model.state_dict()
    out = {}

    def put(name, *parts):
        for kind in ("weight", "bias"):
            out[f"{name}.{kind}"] = torch.cat([w[f"{part}.{kind}"] for part in parts])

    def scale(name, part):
        out[f"{name}.scale"] = w[f"{part}.weight"].clone()

    put("img_in", "x_embedder")
    put("txt_in", "context_embedder")
    for name, part in (("time_in", "timestep"), ("vector_in", "text"), ("guidance_in", "guidance")):
        if f"time_text_embed.{part}_embedder.linear_1.weight" in w:
            put(f"{name}.in_layer", f"time_text_embed.{part}_embedder.linear_1")
            put(f"{name}.out_layer", f"time_text_embed.{part}_embedder.linear_2")
    for i in range(model.config.num_layers):
        d, b = f"transformer_blocks.{i}", f"double_blocks.{i}"
        put(f"{b}.img_mod.lin", f"{d}.norm1.linear")
        put(f"{b}.txt_mod.lin", f"{d}.norm1_context.linear")
        put(f"{b}.img_attn.qkv", f"{d}.attn.to_q", f"{d}.attn.to_k", f"{d}.attn.to_v")
        put(f"{b}.txt_attn.qkv", f"{d}.attn.add_q_proj", f"{d}.attn.add_k_proj", f"{d}.attn.add_v_proj")
        put(f"{b}.img_attn.proj", f"{d}.attn.to_out.0")
        put(f"{b}.txt_attn.proj", f"{d}.attn.to_add_out")
        scale(f"{b}.img_attn.norm.query_norm", f"{d}.attn.norm_q")
        scale(f"{b}.img_attn.norm.key_norm", f"{d}.attn.norm_k")
        scale(f"{b}.txt_attn.norm.query_norm", f"{d}.attn.norm_added_q")
        scale(f"{b}.txt_attn.norm.key_norm", f"{d}.attn.norm_added_k")
        for side, part in (("img", "ff"), ("txt", "ff_context")):
            put(f"{b}.{side}_mlp.0", f"{d}.{part}.net.0.proj")
            put(f"{b}.{side}_mlp.2", f"{d}.{part}.net.2")
    for i in range(model.config.num_single_layers):
        d, b = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
        put(f"{b}.modulation.lin", f"{d}.norm.linear")
        put(f"{b}.linear1", f"{d}.attn.to_q", f"{d}.attn.to_k", f"{d}.attn.to_v", f"{d}.proj_mlp")
        put(f"{b}.linear2", f"{d}.proj_out")
        scale(f"{b}.norm.query_norm", f"{d}.attn.norm_q")
        scale(f"{b}.norm.key_norm", f"{d}.attn.norm_k")
    put("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):  # diffusers: scale, shift; the original: shift, scale
        factor, shift = w[f"norm_out.linear.{kind}"].chunk(2)
        out[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, factor])
    return out


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", ["flux_dev", "flux_schnell"])
def test_a_single_file_is_the_same_transformer(kind, prefix, request, tmp_path):
    folder = request.getfixturevalue(kind)
    original = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    file = tmp_path / "flux.safetensors"
    save_file({prefix + name: t.contiguous() for name, t in original_layout(original).items()}, file)
    loaded = load_single_file(file, torch.float32)
    assert {k: v for k, v in loaded.config.items() if not k.startswith("_")} == {
        k: v for k, v in original.config.items() if not k.startswith("_")
    }
    expected, found = original.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_other_files_are_refused_with_a_sentence(tmp_path):
    other = tmp_path / "sdxl.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, other)
    with pytest.raises(ModelError, match="is not a FLUX transformer"):
        load_single_file(other, torch.float32)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="is not a whole safetensors file"):
        load_single_file(broken, torch.float32)


def test_a_file_with_tensors_of_its_own_is_refused(flux_schnell, tmp_path):
    model = FluxTransformer2DModel.from_pretrained(flux_schnell, subfolder="transformer")
    file = tmp_path / "extended.safetensors"
    save_file({**original_layout(model), "double_blocks.0.img_attn.extra.weight": torch.zeros(2)}, file)
    with pytest.raises(ModelError, match=r"is no plain FLUX transformer: 1 tensors .*img_attn.extra"):
        load_single_file(file, torch.float32)
