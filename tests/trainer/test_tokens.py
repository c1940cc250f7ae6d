"""How long the prompts are for T5: as ComfyUI pads them, or as FluxPipeline does."""

import shutil

import pytest
import torch
from diffusers import FluxPipeline

from trainer.errors import ConfigError
from trainer.models.files.source import ModelError, resolve
from trainer.models.flux1.text import encode_prompts
from trainer.models.flux1.tokens import text_tokens
from trainer.models.storage.placement import Placement
from trainer.settings.config import ModelSettings


def test_a_model_has_comfyuis_length_or_its_pipelines_and_a_number_stays(flux_dev, flux_schnell):
    sources = [resolve(name) for name in ("embedded", str(flux_dev), str(flux_schnell))]
    assert [text_tokens("auto", source) for source in sources] == [32, 256, 256]
    assert [text_tokens("reference", source) for source in sources] == [32, 512, 256]
    assert text_tokens(77, resolve(str(flux_dev))) == 77
    assert ModelSettings("embedded").text_tokens == "auto"


def test_schnells_prompts_are_those_of_its_reference_pipeline(flux_schnell):
    """`max_sequence_length=256`, as its model card calls it; cut and padded alike."""
    source = resolve(str(flux_schnell))
    prompts = ["a red apple", "a blue fish " * 200]
    ours = encode_prompts(source, prompts, Placement("cpu", torch.float32), tokens=text_tokens("reference", source))
    pipeline = FluxPipeline.from_pretrained(flux_schnell, transformer=None, vae=None, local_files_only=True)
    embeddings, pooled, _ = pipeline.encode_prompt(prompts, prompt_2=None, max_sequence_length=256)
    assert ours.tensors["embeddings"].shape[1] == 256
    torch.testing.assert_close(ours.tensors["embeddings"], embeddings, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.tensors["pooled"], pooled, rtol=0, atol=1e-6)


def test_a_folder_without_the_configuration_is_refused(flux_dev, tmp_path):
    folder = shutil.copytree(flux_dev, tmp_path / "flux")
    (folder / "transformer/config.json").unlink()
    with pytest.raises(ModelError, match="its transformer's configuration does not load"):
        text_tokens("reference", resolve(str(folder)))


@pytest.mark.parametrize("tokens", [0, 513, "many"])
def test_other_lengths_are_refused(tokens):
    with pytest.raises(ConfigError, match=r"model\.text_tokens = .* must be between 1 and 512 tokens, or '"):
        ModelSettings("embedded", text_tokens=tokens)
