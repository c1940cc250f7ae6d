"""Damaged parts of a model folder: one line for the user, whichever library reads the part."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.models.files.source import ModelError, resolve
from trainer.models.flux1.family import load_flux
from trainer.models.flux1.text import encode_prompts
from trainer.models.storage.placement import Placement


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "vae", "transformer"])
def test_damaged_weights_are_named_by_their_part_in_one_line(flux_dev, tmp_path, part):
    folder = shutil.copytree(flux_dev, tmp_path / "model")
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(b"not a safetensors file")
    source = resolve(str(folder))
    with pytest.raises(ModelError, match=f"its {part} does not load") as caught:  # noqa: PT012
        encode_prompts(source, ["zebra"], Placement("cpu", torch.float32), tokens=12)
        load_flux(source, Placement("cpu", torch.float32), guidance=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "vae", "transformer"])
def test_a_weight_that_is_missing_is_an_error_and_not_a_random_number(flux_dev, tmp_path, part):
    folder = shutil.copytree(flux_dev, tmp_path / "model")
    (weights,) = (folder / part).glob("*.safetensors")
    tensors = load_file(weights)
    lost = next(name for name in sorted(tensors) if "norm" in name)
    save_file({name: t for name, t in tensors.items() if name != lost}, weights, metadata={"format": "pt"})
    source = resolve(str(folder))
    with pytest.raises(ModelError, match=f"its {part} lacks 1 weights, the first is .*{lost}"):  # noqa: PT012
        encode_prompts(source, ["zebra"], Placement("cpu", torch.float32), tokens=12)
        load_flux(source, Placement("cpu", torch.float32), guidance=1)
