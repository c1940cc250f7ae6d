"""The embedded model: what ships is a real FLUX that draws what its captions say, and training raises its reward."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from transformers import CLIPModel

from tests.embedded_model.card import CHOICES, generate, right_caption_share
from tests.embedded_model.text import clip_vocabulary
from trainer import tiny
from trainer.__main__ import main
from trainer.cli.demo_report import originals
from trainer.experiments.tasks import TASKS
from trainer.rewards.clip_kinds import clip
from trainer.rewards.scene import facts
from trainer.tiny import scene_captions
from trainer.tiny.captions import COMBINATIONS, caption

CAPTIONS = [caption(*c) for c in COMBINATIONS]
ROWS = np.random.default_rng(9).choice(len(COMBINATIONS), 40, replace=False).tolist()


@pytest.fixture(scope="module")
def generated():
    """40 pictures by the plain FluxPipeline."""
    return generate(tiny.FLUX, [CAPTIONS[r] for r in ROWS], tokens=tiny.TEXT_TOKENS, seed=77)


@pytest.mark.parametrize(("parts", "weights"), [(("flux", "clip", "clip-heldout"), 6), (("scenes",), 5)])
def test_each_model_that_ships_is_at_most_30_megabytes(parts, weights):
    here = Path(tiny.__file__).parent
    files = [p for part in parts for p in (here / part).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 30e6
    assert sum(p.name.endswith(".safetensors") for p in files) == weights


def test_scenes_are_drawn_as_told_more_often_than_by_chance_and_not_always():
    """Which the card measures over 200 captions: 60 % of them; chance is 1 in 60."""
    texts = list(TASKS["scenes"].tested)
    images = generate(tiny.SCENES, texts, tokens=tiny.MODELS["embedded-scenes"].text_tokens, seed=3)
    assert 0.4 <= facts(images, texts).all(1).float().mean() <= 0.8
    assert facts(images, texts[1:] + texts[:1]).all(1).float().mean() <= 0.2


def test_originals_are_what_their_captions_say():
    images = originals()
    assert facts(images, list(TASKS["scenes"].tested)).all()
    reward = clip("cpu", tiny.SCENES_CLIP)
    texts = [scene_captions.caption(scene) for scene in scene_captions.SCENES]
    rows = [texts.index(text) for text in TASKS["scenes"].tested]
    assert right_caption_share(reward, images, rows, texts, np.random.default_rng(5)) >= 0.9


def test_the_vocabulary_of_scenes_is_the_one_every_build_makes():
    vocabulary, _ = clip_vocabulary([scene_captions.caption(scene) for scene in scene_captions.SCENES])
    for folder in (tiny.SCENES / "tokenizer", tiny.SCENES_CLIP):
        assert json.loads((folder / "vocab.json").read_text("utf-8")) == vocabulary


@pytest.mark.parametrize("folder", [tiny.CLIP, tiny.CLIP_HELD_OUT], ids=lambda f: f.name)
def test_pictures_match_their_captions_for_both_clips(generated, folder):
    """Chance is 1 in 32; the card has the measurement over 200 captions."""
    assert CHOICES == 32
    share = right_caption_share(clip("cpu", folder), generated, ROWS, CAPTIONS, np.random.default_rng(5))
    assert share >= 0.5


def test_shuffled_captions_do_not_match(generated):
    shifted = ROWS[1:] + ROWS[:1]
    share = right_caption_share(clip("cpu", tiny.CLIP_HELD_OUT), generated, shifted, CAPTIONS, np.random.default_rng(5))
    assert share <= 0.15


def test_the_two_clips_share_no_weights():
    trained, held_out = (CLIPModel.from_pretrained(f, local_files_only=True) for f in (tiny.CLIP, tiny.CLIP_HELD_OUT))
    assert trained.config.projection_dim != held_out.config.projection_dim
    assert trained.config.vision_config.patch_size != held_out.config.vision_config.patch_size


def test_pictures_differ_by_seed_and_repeat_by_seed():
    prompts = ["panda on a pink background"] * 2
    first, again = (generate(tiny.FLUX, prompts, tokens=tiny.TEXT_TOKENS, seed=5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("folder", [tiny.FLUX / "tokenizer", tiny.CLIP, tiny.CLIP_HELD_OUT], ids=lambda f: f.name)
def test_the_vocabulary_that_ships_is_the_one_every_build_makes(folder):
    vocabulary, merges = clip_vocabulary(CAPTIONS)
    assert json.loads((folder / "vocab.json").read_text("utf-8")) == vocabulary
    assert (folder / "merges.txt").read_text("utf-8").splitlines()[1:] == [" ".join(m) for m in merges]


def test_geometry_is_that_of_flux():
    pipeline = FluxPipeline.from_pretrained(tiny.FLUX, local_files_only=True)
    assert pipeline.vae_scale_factor == 8
    assert pipeline.vae.config.latent_channels == 16
    assert pipeline.transformer.config.in_channels == 64
    assert pipeline.scheduler.config.use_dynamic_shifting


def test_the_demo_raises_the_reward_on_prompts_it_was_not_trained_on(tmp_path, capsys):
    """The whole way, by the command a user types, but shorter: it rises by 5 standard errors here, there by 7."""
    shorter = ["--set", "run.iterations=24"]
    assert main(["demo", "--json", "--folder", str(tmp_path / "demo"), *shorter]) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(report["rewards"][name]["rise"] >= 3 for name in ("tiny-scene", "tiny-scene-clip"))
    assert Path(report["grid"]).is_file()
    assert Path(report["lora"]).is_file()
