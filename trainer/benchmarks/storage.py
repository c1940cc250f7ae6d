"""What frozen weights in fewer bits change: the velocity, on the same latents."""

from dataclasses import replace
from importlib.util import find_spec

import torch
from torch import Tensor

from ..engine.state import Setup
from ..models.conditioning import Conditioning
from ..settings.config import Config
from ..training.prepare import prepare
from .latents import random_latents

ROWS = 4  # of x, at as many values of sigma


def measure(config: Config) -> dict[str, dict[str, float]]:
    """Of each memory plan the relative error |v - v_bf16| / |v_bf16|, where "bf16" is the model's own precision:

    of the transformer alone, and with the prompts encoded by encoders of the same plan.
    """
    exact = loaded(config, "bf16")
    expected = velocity(exact, exact.conditioning)
    errors = {}
    for plan in ["fp8", "nf4"] if find_spec("bitsandbytes") else ["fp8"]:
        setup = loaded(config, plan)
        found = {"transformer": exact.conditioning, "with_text_encoders": setup.conditioning}
        errors[plan] = {name: relative(velocity(setup, text), expected) for name, text in found.items()}
    return errors


def loaded(config: Config, memory: str) -> Setup:
    return prepare(replace(config, model=replace(config.model, memory=memory)))


@torch.no_grad()
def velocity(setup: Setup, conditioning: Conditioning) -> Tensor:
    """Of the prompts in turn on random latents, float32 [ROWS, N, 64] on the CPU."""
    device = setup.policy.device
    x = random_latents(setup.geometry, ROWS, torch.Generator().manual_seed(0))
    sigma, rows = torch.linspace(0.2, 1, ROWS), torch.arange(ROWS) % len(conditioning)
    return setup.policy.velocity(conditioning, setup.geometry)(*(t.to(device) for t in (x, sigma, rows))).float().cpu()


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def table(errors: dict[str, dict[str, float]]) -> str:
    return "\n".join(
        f"{plan}: the velocity is {error['transformer']:.2%} off, {error['with_text_encoders']:.2%} with the text "
        "encoders in the same bits"
        for plan, error in errors.items()
    )
