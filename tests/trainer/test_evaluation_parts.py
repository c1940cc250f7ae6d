"""Evaluation prompts, however many: the device holds as many of their pictures at once as of an iteration's."""

from dataclasses import replace

import pytest
import torch

from trainer.models.flux1.vae import Vae
from trainer.settings.config_file import load_config
from trainer.training.evaluate import evaluate
from trainer.training.prepare import prepare

PROMPTS = [f"a {colour} fish" for colour in "red blue green black white grey pink gold teal".split()]


class Watched:
    """A reward that tells each picture by its mean, and how many came at once."""

    def __init__(self):
        self.seen = []

    def score(self, images, prompts):
        self.seen.append(len(images))
        return images.mean((1, 2, 3))


@pytest.fixture
def evaluated(config_file):
    """The evaluation by iterations of P x G pictures, what was decoded and scored at once."""

    def run(prompts: int, group_size: int):
        sizes = [f"grpo.prompts_per_iteration={prompts}", f"grpo.group_size={group_size}", "run.micro_batch=3"]
        setup = prepare(load_config(config_file(), [*sizes, f"evaluation.prompts={PROMPTS!r}"]))
        watched, decoded = Watched(), []

        class Counted(Vae):
            def decode(self, z):
                decoded.append(len(z))
                return super().decode(z)

        policy = replace(setup.policy, autoencoder=Counted(setup.policy.vae.vae))
        setup = replace(setup, policy=policy, rewards={"mean": watched})
        return evaluate(setup, 0), decoded, watched.seen

    return run


def test_pictures_are_drawn_and_scored_in_parts_of_an_iterations_size_and_are_the_same(evaluated):
    whole, _, at_once = evaluated(3, 4)
    parts, decoded, scored = evaluated(1, 4)
    assert at_once == [9]
    assert scored == [4, 4, 1]
    assert decoded == [3, 1, 3, 1, 1]
    torch.testing.assert_close(parts.images, whole.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.scores["mean"], whole.scores["mean"], atol=1e-5, rtol=0)
    assert parts.scores["mean"].tolist() == pytest.approx([picture.mean().item() for picture in parts.images], abs=1e-6)
    assert len(set(parts.scores["mean"].tolist())) == len(PROMPTS)
