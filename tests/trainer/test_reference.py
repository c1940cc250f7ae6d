"""Pictures that the model sees while it draws, as FLUX.1-Kontext does: against diffusers, and in a training."""

import pytest
import torch
from diffusers import FluxKontextPipeline
from drawn_pictures import gradient_picture
from PIL import Image

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of, sample_candidates
from trainer.engine.state import new_state
from trainer.errors import ConfigError
from trainer.models.files.source import resolve
from trainer.models.flux1.conditions import REFERENCE
from trainer.models.flux1.family import load_flux
from trainer.models.flux1.geometry import Geometry
from trainer.models.flux1.text import encode_prompts
from trainer.models.storage.memory import MemoryPlan
from trainer.models.storage.placement import Placement
from trainer.pictures.convert import fitted
from trainer.planning.phases import predict
from trainer.settings.config_file import load_config
from trainer.stages.rollout import micro_batched, rollout
from trainer.stages.solvers import SOLVERS
from trainer.training.prepare import prepare

ALONE = ["model.keep_inputs=false"]  # a rollout that no update follows
SEEN = "image = 'seen.png'\nreference = true"


@pytest.fixture
def seen(tmp_path):
    path = tmp_path / "seen.png"
    gradient_picture(64, 64).save(path)
    return path


def test_a_reference_is_seen_as_in_diffusers(flux_dev):
    geometry = Geometry(64, 48)
    picture = fitted(gradient_picture(64, 48), (geometry.width, geometry.height))[None]
    noise = torch.randn(1, *geometry.latent_shape, generator=torch.Generator().manual_seed(1))
    pipeline = FluxKontextPipeline.from_pretrained(flux_dev, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        picture,
        "red apple",
        width=64,
        height=48,
        num_inference_steps=4,
        guidance_scale=2.5,
        max_sequence_length=12,
        latents=geometry.pack(noise),
        output_type="latent",
        max_area=64 * 48,
        _auto_resize=False,
    ).images

    source = resolve(str(flux_dev))
    policy = load_flux(source, Placement("cpu", torch.float32), guidance=2.5)
    conditioning = encode_prompts(source, ["red apple"], Placement("cpu", torch.float32), tokens=12)
    reference = geometry.pack(policy.vae.encode(picture))
    velocity = micro_batched(policy.velocity(conditioning.beside({REFERENCE: reference}), geometry), 1)
    sigmas = torch.cat([pipeline.scheduler.sigmas[:4].double(), torch.zeros(1, dtype=torch.float64)])
    found = rollout(velocity, geometry.pack(noise), torch.zeros(1, dtype=torch.long), sigmas, SOLVERS["euler"]).x_0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.also_on_card
def test_a_training_sees_its_picture_in_rollout_and_update_alike(config_file, seen):
    setup = prepare(load_config(config_file(init=SEEN)))
    group = collect(setup, 0, Clock(setup.policy.device))
    metrics, skipped = improve(setup, new_state(setup), group, pairs_of(setup, group, 0))
    assert not skipped
    assert metrics["ratio_error"] == 0


@pytest.mark.also_on_card
def test_a_reference_changes_where_trajectories_end_and_not_where_they_begin(config_file, seen):
    seeing, plain = (
        sample_candidates(
            prepare(load_config(config_file(**init), ALONE)), 0, [0], Clock(torch.device("cpu"))
        ).trajectories
        for init in ({"init": SEEN}, {})
    )
    assert torch.equal(seeing.x, plain.x)
    assert seeing.x_0.shape == plain.x_0.shape
    assert not torch.equal(seeing.x_0, plain.x_0)


@pytest.mark.also_on_card
def test_each_prompt_sees_its_own_picture(config_file, tmp_path, monkeypatch):
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    setup = prepare(load_config(config_file(init="image = ['a.png', 'b.png', 'c.png']\nreference = true"), ALONE))
    velocity, seen = setup.policy.velocity, []

    def watched(conditioning, geometry):
        seen.append(conditioning.tensors[REFERENCE])
        return velocity(conditioning, geometry)

    monkeypatch.setattr(setup.policy, "velocity", watched)
    found = sample_candidates(setup, 0, [0], Clock(setup.policy.device))
    encoded = setup.geometry.pack(setup.init.latents)
    assert torch.equal(seen[0].cpu(), encoded[found.prompts])
    assert not torch.equal(encoded[found.prompts[0]], encoded[found.prompts[1]])


def test_what_is_seen_is_counted_by_the_plan(config_file, seen):
    plain, seeing = (predict(load_config(config_file(**init)), MemoryPlan()) for init in ({}, {"init": SEEN}))
    assert seeing["update"].device > plain["update"].device


def test_a_reference_needs_a_picture(config_file):
    with pytest.raises(ConfigError, match=r"init.reference = True: needs init.image"):
        load_config(config_file(init="reference = true"))
