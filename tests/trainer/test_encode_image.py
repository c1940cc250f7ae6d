"""Pictures to begin from: how they are cut, encoded and refused, and what FLUX.1-Fill sees, against diffusers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from diffusers.pipelines.flux import pipeline_flux_fill
from diffusers.pipelines.flux.pipeline_flux_fill import retrieve_latents
from drawn_pictures import gradient_picture, square
from PIL import Image

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of, sample_candidates
from trainer.engine.state import new_state
from trainer.errors import ConfigError, UserError
from trainer.models.files.source import resolve
from trainer.models.flux1.conditions import FILL
from trainer.models.flux1.encode_image import fill_conditioning, latent_mask
from trainer.models.flux1.family import load_flux
from trainer.models.flux1.geometry import Geometry
from trainer.models.flux1.text import encode_prompts
from trainer.models.storage.placement import Placement
from trainer.picture_files import PictureError, read_pictures
from trainer.pictures.convert import fitted
from trainer.settings.config_file import load_config, parse
from trainer.stages.rollout import micro_batched, rollout
from trainer.stages.solvers import SOLVERS
from trainer.training.prepare import prepare


@pytest.fixture
def files(tmp_path) -> Path:
    gradient_picture(96, 64).save(tmp_path / "wide.png")
    gradient_picture(64, 64).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "flipped.png")
    gradient_picture(64, 64).rotate(90).save(tmp_path / "turned.png")
    square(96, 64, 40).save(tmp_path / "mask.png")
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


# ---- size, scale and mask


def test_a_picture_covers_the_size_and_is_cut_in_the_middle():
    wide = fitted(gradient_picture(192, 64), (64, 64))
    assert wide.shape == (3, 64, 64)
    middle = np.asarray(gradient_picture(192, 64))[:, 64:128] / 255
    np.testing.assert_allclose(wide.permute(1, 2, 0).numpy(), middle, atol=1e-6)  # not scaled: nothing but the cut
    tall = fitted(gradient_picture(64, 256), (32, 64))  # halved, and then the middle 64 of 128 rows
    assert tall[1, 0].mean() == pytest.approx(0.25, abs=0.02)
    assert tall[1, -1].mean() == pytest.approx(0.75, abs=0.02)


def test_a_photograph_that_a_camera_turned_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown with its left edge on top
    gradient_picture(64, 32).save(tmp_path / "camera.jpg", exif=exif)
    (picture,), _ = read_pictures([str(tmp_path / "camera.jpg")], "")
    assert picture.size == (32, 64)


def test_encoding_takes_the_mode_with_the_models_scale_and_shift(flux_dev):
    policy = load_flux(resolve(str(flux_dev)), Placement("cpu", torch.float32), guidance=3.5)
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    encoder = policy.vae.encode
    with torch.no_grad():
        expected = (policy.vae.vae.encode(2 * images - 1).latent_dist.mean - 0.1159) * 0.3611
    torch.testing.assert_close(encoder(images), expected)
    assert torch.equal(encoder(images), encoder(images))


def test_a_latent_is_masked_where_half_of_its_pixels_are():
    mask = torch.zeros(16, 24)
    mask[:8, :4] = 1  # half of the first square
    mask[:8, 8:11] = 1  # three eighths of the second
    mask[8:, 16:] = 0.5
    assert latent_mask(mask).tolist() == [[True, False, False], [False, False, True]]
    with pytest.raises(PictureError, match="the mask covers no square of 8 x 8 pixels: paint white"):
        latent_mask(torch.zeros(16, 16))


# ---- the settings


def test_pictures_are_found_beside_the_file_and_belong_to_the_settings(config_file, files):
    one = load_config(config_file(init="image = 'wide.png'\nmask = 'mask.png'\ndenoise = 0.5"))
    assert one.init.image == (str(files / "wide.png"),)
    assert parse(one.to_dict()) == one
    gradient_picture(96, 64).rotate(180).save(files / "wide.png")
    other = load_config(config_file(init="image = 'wide.png'\nmask = 'mask.png'\ndenoise = 0.5"))
    assert other.init.digest != one.init.digest
    square(96, 64, 48).save(files / "mask.png")
    assert parse(one.to_dict()).init.digest not in (one.init.digest, other.init.digest)


REFUSED = [
    ("image = 'nowhere.png'", "init.image = 'nowhere.png': there is no file or folder"),
    ("image = 'text.png'", "text.png is no whole PNG, JPEG, .* or GIF file: save it as PNG"),
    ("image = '.'", "is a folder: name a picture in it"),
    ("image = 'flipped.png'\nmask = 'mask.png'", "mask.png has 96 x 64 pixels, .*flipped.png has 64 x 64: save"),
    ("image = ['wide.png', 'flipped.png']", "must be one, or one for each of 3 prompts"),
    ("image = 3", "init.image = 3: must be a list of texts"),
    ("image = [['wide.png']]", "must be a list of texts"),
    ("image = 'wide.png'\nmask = ['mask.png']", "must be text"),
    ("denoise = 0.5", "init.denoise = 0.5: below 1 it needs init.image"),
    ("mask = 'mask.png'", "init.mask = 'mask.png': needs init.image"),
    ("image = 'wide.png'\ndenoise = 0", "init.denoise = 0.0: must be above 0 and at most 1"),
    ("image = 'wide.png'\nstrength = 0.5", "'strength' is no key of \\[init\\]"),
]


@pytest.mark.parametrize(("section", "message"), REFUSED, ids=[section for section, _ in REFUSED])
def test_what_cannot_be_begun_from_is_refused_in_one_line(config_file, files, section, message):
    with pytest.raises(ConfigError, match=message) as refused:
        load_config(config_file(init=section))
    assert "\n" not in str(refused.value)


def test_evaluation_prompts_without_a_picture_are_refused(config_file, files):
    pictures = "image = ['wide.png', 'flipped.png', 'turned.png']"
    with pytest.raises(ConfigError, match=r"evaluation.prompts = \['a cat'\]: must be among the prompts"):
        prepare(load_config(config_file(init=pictures, evaluation='prompts = ["a cat", "a blue fish"]')))


def test_every_prompt_begins_from_its_picture_and_ends_at_it_outside_the_mask(config_file, files):
    """End to end from files: outside the mask the result is the picture's way through the VAE and back."""
    for name in ("flipped", "turned"):
        gradient_picture(96, 64).rotate({"flipped": 180, "turned": 0}[name]).save(files / f"{name}.png")
    gradient_picture(96, 64).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(files / "wide.png")
    section = "image = ['wide.png', 'flipped.png', 'turned.png']\nmask = 'mask.png'"
    setup = prepare(load_config(config_file(init=section)))
    found = sample_candidates(setup, 0, [0], Clock(setup.policy.device))
    ends = setup.geometry.unpack(found.trajectories.x_0).unflatten(0, (2, -1))
    encoder = setup.policy.vae.encode
    kept = ~setup.init.mask
    assert 0 < kept.sum() < kept.numel()
    for prompt, group in zip(found.prompts, ends, strict=True):
        name = ("wide", "flipped", "turned")[prompt]
        image = fitted(Image.open(files / f"{name}.png"), (64, 64))
        assert all(torch.equal(end[:, kept], encoder(image[None])[0][:, kept]) for end in group)


# ---- FLUX.1-Fill


def test_fill_draws_the_same_latents_as_diffusers(flux_fill, monkeypatch):
    monkeypatch.setattr(  # a sample of the posterior there, its mode here
        pipeline_flux_fill,
        "retrieve_latents",
        lambda encoded, generator=None: retrieve_latents(encoded, None, "argmax"),
    )
    geometry, size = Geometry(64, 48), (64, 48)
    picture, mask = gradient_picture(*size), square(*size, 20)
    noise = torch.randn(1, *geometry.latent_shape, generator=torch.Generator().manual_seed(1))
    pipeline = FluxFillPipeline.from_pretrained(flux_fill, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "red apple",
        image=picture,
        mask_image=mask,
        width=64,
        height=48,
        num_inference_steps=4,
        guidance_scale=30.0,
        max_sequence_length=12,
        latents=geometry.pack(noise),
        output_type="latent",
    ).images

    source = resolve(str(flux_fill))
    policy = load_flux(source, Placement("cpu", torch.float32), guidance=30.0)
    conditioning = encode_prompts(source, ["red apple"], Placement("cpu", torch.float32), tokens=12)
    encoder = policy.vae.encode
    seen = fill_conditioning(fitted(picture, size)[None], fitted(mask, size)[0], encoder, geometry)
    assert seen.shape == (1, geometry.tokens, 320)
    velocity = micro_batched(policy.velocity(conditioning.beside({FILL: seen}), geometry), 1)
    sigmas = torch.cat([pipeline.scheduler.sigmas[:4].double(), torch.zeros(1, dtype=torch.float64)])
    found = rollout(velocity, geometry.pack(noise), torch.zeros(1, dtype=torch.long), sigmas, SOLVERS["euler"]).x_0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_fill_trains_with_picture_and_mask_and_is_refused_without(config_file, files, flux_fill):
    model = f"path = {str(flux_fill)!r}\ndevice = 'cpu'\ntext_tokens = 12"
    setup = prepare(load_config(config_file(model=model, init="image = 'wide.png'\nmask = 'mask.png'")))
    group = collect(setup, 0, Clock(setup.policy.device))
    metrics, skipped = improve(setup, new_state(setup), group, pairs_of(setup, group, 0))
    assert not skipped
    assert metrics["ratio_error"] == 0
    with pytest.raises(UserError, match=r"FLUX\.1-Fill draws into pictures"):
        prepare(load_config(config_file(model=model)))
