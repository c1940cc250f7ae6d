"""Single files under Black Forest Labs' names load to the same transformer as the diffusers folder."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from original_names import original_layout
from safetensors.torch import save_file

from trainer.models.files.source import ModelError, resolve
from trainer.models.flux1.transformer import load_transformer


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", ["flux_dev", "flux_schnell"])
def test_a_single_file_is_the_same_transformer(kind, prefix, request, tmp_path):
    folder = request.getfixturevalue(kind)
    original = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    file = tmp_path / "flux.safetensors"
    save_file({prefix + name: t.contiguous() for name, t in original_layout(original).items()}, file)
    loaded = load_transformer(resolve(str(file)), dtype=torch.float32)
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
        load_transformer(resolve(str(other)), dtype=torch.float32)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="is not a whole safetensors file"):
        load_transformer(resolve(str(broken)), dtype=torch.float32)


def test_a_file_with_tensors_of_its_own_is_refused(flux_schnell, tmp_path):
    model = FluxTransformer2DModel.from_pretrained(flux_schnell, subfolder="transformer")
    file = tmp_path / "extended.safetensors"
    save_file({**original_layout(model), "double_blocks.0.img_attn.extra.weight": torch.zeros(2)}, file)
    with pytest.raises(ModelError, match=r"is no plain FLUX transformer: it has 1 tensors .*img_attn.extra"):
        load_transformer(resolve(str(file)), dtype=torch.float32)
