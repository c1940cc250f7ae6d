"""FLUX as a policy, against diffusers' own pipeline."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from trainer.engine.setup import time_shift
from trainer.errors import ConfigError
from trainer.models.files.source import ModelError, resolve
from trainer.models.flux1.family import load_flux
from trainer.models.flux1.geometry import Geometry
from trainer.models.flux1.text import encode_prompts
from trainer.models.storage.placement import Placement
from trainer.settings.config import Config, ModelSettings, RewardSettings, SamplingSettings
from trainer.stages.decode import decode
from trainer.stages.rollout import micro_batched, rollout
from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS

PROMPTS = ["red apple on a blue background", "zebra"]


def load(folder, guidance=3.5):
    source = resolve(str(folder))
    policy = load_flux(source, Placement("cpu", torch.float32), guidance=guidance)
    return policy, encode_prompts(source, PROMPTS, Placement("cpu", torch.float32), tokens=12)


@pytest.mark.parametrize("model", ["flux_dev", "flux_schnell"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 48)])
def test_an_euler_rollout_draws_the_same_pictures_as_diffusers(model, width, height, request):
    """The whole path: prompt encoding, packing, positions, guidance, the grid, the solver, decoding."""
    folder = request.getfixturevalue(model)
    geometry = Geometry(width, height)
    noise = torch.randn(2, *geometry.latent_shape, generator=torch.Generator().manual_seed(1))
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPTS,
        width=width,
        height=height,
        num_inference_steps=5,
        guidance_scale=3.5,
        max_sequence_length=12,
        latents=pipeline._pack_latents(noise, 2, *geometry.latent_shape),
        output_type="pt",
    ).images

    policy, conditioning = load(folder)
    sigmas = torch.cat([pipeline.scheduler.sigmas[:5].double(), torch.zeros(1, dtype=torch.float64)])
    end = rollout(
        micro_batched(policy.velocity(conditioning, geometry), 1),
        geometry.pack(noise),
        torch.arange(2),
        sigmas,
        SOLVERS["euler"],
    )
    images = decode(lambda x_0: policy.decode(x_0, geometry), end.x_0, micro_batch=1)
    assert images.shape == (2, 3, height, width)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_the_guidance_embedding_is_used_where_the_model_has_one(flux_dev, flux_schnell):
    x = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(1))
    for folder, differs in ((flux_dev, True), (flux_schnell, False)):
        outputs = []
        for guidance in (1.0, 5.0):
            policy, conditioning = load(folder, guidance)
            with torch.no_grad():
                velocity = policy.velocity(conditioning, Geometry(64, 64))
                outputs.append(velocity(x, torch.full((2,), 0.5), torch.arange(2)))
        assert torch.equal(*outputs) != differs


def test_in_bfloat16_states_stay_float32_and_full_batches_give_equal_bits(flux_dev):
    """The reason for `fill`: a row evaluated in a batch of another shape may differ, of the same shape may not."""
    source = resolve(str(flux_dev))
    policy = load_flux(source, Placement("cpu", torch.bfloat16), guidance=3.5)
    conditioning = encode_prompts(source, PROMPTS, Placement("cpu", torch.bfloat16), tokens=12)
    velocity = micro_batched(policy.velocity(conditioning, Geometry(64, 64)), 4)
    x = torch.randn(7, 16, 64, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    with torch.no_grad():
        whole = velocity(x, torch.full((7,), 0.5), rows)
        part = velocity(x[[5, 2, 6]], torch.full((3,), 0.5), rows[[5, 2, 6]])
    assert whole.dtype == torch.float32
    assert torch.equal(part, whole[[5, 2, 6]])


def test_prompts_are_encoded_like_the_pipeline_does_in_any_batch(flux_dev, monkeypatch):
    pipeline = FluxPipeline.from_pretrained(flux_dev, local_files_only=True)
    prompts = [f"{n} apples" for n in range(5)]
    expected, pooled, _ = pipeline.encode_prompt(prompts, None, max_sequence_length=12)
    monkeypatch.setattr("trainer.models.flux1.text.BATCH", 2)
    conditioning = encode_prompts(resolve(str(flux_dev)), prompts, Placement("cpu", torch.float32), tokens=12)
    torch.testing.assert_close(conditioning.tensors["embeddings"], expected)
    torch.testing.assert_close(conditioning.tensors["pooled"], pooled)


def test_the_dynamic_shift_gives_diffusers_grid(flux_dev):
    pipeline = FluxPipeline.from_pretrained(flux_dev, local_files_only=True)
    pipeline.scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.9)
    ours = sigma_grid(4, torch.tensor(0.9).exp().item())
    torch.testing.assert_close(ours, pipeline.scheduler.sigmas.double(), rtol=0, atol=1e-6)


def test_the_sigmas_shift_where_the_models_scheduler_says_so(flux_dev, flux_schnell):
    geometry = Geometry(64, 64)
    config = Config(ModelSettings("embedded"), ("apple",), (RewardSettings("colourfulness"),))
    dev, schnell = (time_shift(config, load(folder)[0], geometry) for folder in (flux_dev, flux_schnell))
    pipeline = FluxPipeline.from_pretrained(flux_dev, local_files_only=True)
    s = pipeline.scheduler.config
    assert dev == pytest.approx(math.exp(calculate_shift(16, s.base_image_seq_len, s.max_image_seq_len, 0.5, 1.15)))
    assert schnell == 1
    fixed = replace(config, sampling=SamplingSettings(shift=2.5))
    assert time_shift(fixed, load(flux_schnell)[0], geometry) == 2.5


def test_a_missing_model_is_named_with_the_remedy(tmp_path, flux_dev):
    with pytest.raises(ModelError, match=r"'/nowhere'.*no diffusers folder.*hub:owner/name"):
        resolve("/nowhere")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="no folder 'transformer'"):
        load_flux(resolve(str(tmp_path)), Placement("cpu", torch.float32), guidance=1)
    (tmp_path / "transformer").mkdir()
    with pytest.raises(ModelError, match="its transformer does not load"):
        load_flux(resolve(str(tmp_path)), Placement("cpu", torch.float32), guidance=1)


def test_the_network_is_asked_for_hub_names_only(flux_dev):
    seen = []

    class Part:
        @staticmethod
        def from_pretrained(location, **options):
            seen.append((location, options["local_files_only"]))

    resolve(str(flux_dev)).load(Part, "transformer")
    resolve("hub:owner/name").load(Part, "transformer")
    assert seen == [(str(flux_dev), True), ("owner/name", False)]


def test_sigma_and_guidance_reach_the_embedding_in_float32_as_in_comfyui(flux_dev):
    """bfloat16 has 8 bits: 0.9 and 0.8991 would be one sigma, and 3.5 x 1000 would be 3504."""
    policy = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.bfloat16), guidance=3.5)
    geometry, seen = Geometry(64, 64), []
    embedding = policy.network.time_text_embed
    embedding.time_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    conditioning = encode_prompts(resolve(str(flux_dev)), PROMPTS[:1], Placement("cpu", torch.bfloat16), tokens=12)
    velocity, row = policy.velocity(conditioning, geometry), torch.zeros(1, dtype=torch.int64)
    x = torch.randn(1, geometry.tokens, 64, generator=torch.Generator().manual_seed(0))
    first, second = (velocity(x, torch.tensor([sigma]), row) for sigma in (0.9, 0.8991))
    assert [t.dtype for t in seen] == [torch.float32] * 4
    assert torch.cat(seen).tolist() == pytest.approx([900, 3500, 899.1, 3500], rel=1e-6)
    assert not torch.equal(first, second)
    assert not embedding._forward_pre_hooks  # nothing stays on the model


@pytest.mark.parametrize("offload", [0.1, 1.0])
def test_compiled_blocks_with_offloaded_weights_are_refused(offload):
    with pytest.raises(ConfigError, match=r"model.offload = .*: compiled blocks need their weights on the device"):
        ModelSettings("embedded", compile=True, offload=offload)
