"""Gradients as small as those of large pictures: float16 would lose them, and with them the direction of the update."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from leaping import accumulate_gradient
from torch import Tensor

from trainer import tiny
from trainer.engine.drawing import Clock, policy_velocity
from trainer.engine.grpo import Group, collect, pairs_of
from trainer.settings.config_file import load_config
from trainer.stages.surrogate import softmax_temperature
from trainer.stages.update import LOSS_SCALE
from trainer.training.prepare import prepare

DEMO = Path(tiny.__file__).parent / "emoji.toml"
SETTINGS = [
    'prompts=["octopus on a red background"]',
    "grpo.prompts_per_iteration=1",
    "grpo.anchors=2",
    "run.folder='x'",
]
SMALLER = 256  # a gradient at 1024 px than at the embedded model's 64, as the loss is a mean over so many more numbers


def gradient(dtype: str, loss_scale: float, group: Group | None = None) -> tuple[Tensor, Group]:
    """Of a LoRA that has an effect, at the size that it has at 1024 px, in the units of the embedded model's."""
    setup = prepare(load_config(DEMO, [*SETTINGS, f"model.dtype='{dtype}'"]))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in setup.lora.items():
            if "lora_B" in name:
                p.copy_(0.02 * torch.randn(p.shape, generator=random))
    group = group or collect(setup, 0, Clock(setup.policy.device))
    pairs, trajectories = pairs_of(setup, group, 0), group.candidates.trajectories
    tau = torch.stack([softmax_temperature(c[None], 1.0, "scale-free") for c in trajectories.x_next])
    velocity = policy_velocity(setup, group.candidates.prompts, 4)
    options = {"clip": 0.2, "micro_batch": 4, "normaliser": len(pairs) * SMALLER, "loss_scale": loss_scale}
    accumulate_gradient(velocity, trajectories, pairs, group.advantages, tau, **options)
    found = torch.cat([p.grad.flatten().double() for p in setup.lora.values()])
    return found * SMALLER / loss_scale, group


@pytest.fixture(scope="module")
def exact():
    return gradient("float32", 1.0)


@pytest.mark.parametrize(("loss_scale", "low", "high"), [(1.0, 0, 0.97), (LOSS_SCALE, 0.9999, 1 + 1e-9)])
def test_a_float16_gradient_has_the_right_direction_only_with_a_scale_in_front_of_the_loss(
    exact, loss_scale, low, high
):
    wanted, group = exact
    found, _ = gradient("float16", loss_scale, group)
    assert low < F.cosine_similarity(found, wanted, dim=0).item() < high


def test_the_scale_leaves_a_float32_gradient_as_it_is(exact):
    wanted, group = exact
    found, _ = gradient("float32", LOSS_SCALE, group)
    assert (found - wanted).norm() < 1e-6 * wanted.norm()
