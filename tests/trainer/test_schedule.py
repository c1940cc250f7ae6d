"""The sigma grid against diffusers' FLUX scheduler."""

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from trainer.models.flux1.geometry import Geometry
from trainer.stages.schedule import jittered, resolution_mu, sigma_grid


def flux_sigmas(steps: int, *, mu: float | None = None, shift: float = 1.0) -> np.ndarray:
    """What FluxPipeline samples on: its sigma list through the scheduler of FLUX.1-dev (mu) or schnell (no mu)."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=mu is not None)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return scheduler.sigmas.numpy()


@pytest.mark.parametrize("tokens", [16, 256, 1024, 4096])
@pytest.mark.parametrize("steps", [1, 8, 28])
def test_grid_is_the_one_flux_dev_samples_on_at_every_resolution(tokens, steps):
    expected = flux_sigmas(steps, mu=calculate_shift(tokens))
    np.testing.assert_allclose(sigma_grid(steps, math.exp(resolution_mu(tokens))).numpy(), expected, atol=2e-7)


SIZES = [(512, 768), (1344, 768), (768, 1344), (1536, 640), (1920, 1088), (64, 256)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_mu_of_a_picture_that_is_not_square_is_the_reference_pipelines(width, height):
    """FluxPipeline counts the tokens of its packed latents: one for 2 x 2 of an eighth of the pixels."""
    tokens = (height // 8 // 2) * (width // 8 // 2)
    assert resolution_mu(Geometry(width, height).tokens) == pytest.approx(calculate_shift(tokens), rel=1e-12)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_grid_with_a_static_shift_is_the_schedulers(shift):
    np.testing.assert_allclose(sigma_grid(8, shift).numpy(), flux_sigmas(8, shift=shift), atol=2e-7)


def test_mu_is_flux_devs_at_both_ends_of_its_line():
    assert resolution_mu(256) == pytest.approx(0.5)  # 256 x 256 pixels
    assert resolution_mu(4096) == pytest.approx(1.15)  # 1024 x 1024 pixels


def test_grid_without_shift_is_even():
    np.testing.assert_allclose(sigma_grid(4).numpy(), [1, 0.75, 0.5, 0.25, 0], rtol=1e-15)


@pytest.mark.parametrize("shift", [0.2, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_grid_falls_from_one_to_zero_in_double_precision(steps, shift):
    grid = sigma_grid(steps, shift)
    assert grid.dtype == torch.float64
    assert grid.shape == (steps + 1,)
    assert grid[0] == 1
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()


def test_a_shift_above_one_spends_the_steps_at_high_noise():
    """The signal-to-noise odds (1 - s) / s are divided by the shift: .5 becomes 3 / 4 at shift 3."""
    assert sigma_grid(2, 3.0)[1].item() == pytest.approx(0.75)


@pytest.mark.parametrize("steps", [0, -1])
def test_fewer_than_one_step_is_refused(steps):
    with pytest.raises(ValueError, match=f"steps must be at least 1, got {steps}"):
        sigma_grid(steps)


@pytest.mark.parametrize("shift", [0.0, -3.0, math.inf, math.nan])
def test_a_shift_that_is_not_a_positive_number_is_refused(shift):
    with pytest.raises(ValueError, match="shift must be a positive number"):
        sigma_grid(8, shift)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_jittered_grid_keeps_its_ends_and_its_order(share):
    grid = sigma_grid(8, 2.0)
    found = torch.stack([jittered(grid, share, generator=torch.Generator().manual_seed(seed)) for seed in range(400)])
    assert torch.equal(found[:, [0, -1]], grid[[0, -1]].expand(400, 2))
    assert (found.diff() < 0).all()
    away = found - grid
    gap = -grid.diff()
    highest, lowest = away.amax(0)[1:-1], away.amin(0)[1:-1]
    np.testing.assert_allclose(highest / gap[:-1], share, rtol=0.02)
    np.testing.assert_allclose(lowest / gap[1:], -share, rtol=0.02)
    assert (away[:, 1:-1] > 0).all(1).sum() + (away[:, 1:-1] < 0).all(1).sum() == 400  # all one way


def test_a_grid_of_one_step_has_nothing_to_jitter():
    assert torch.equal(jittered(sigma_grid(1), 0.5, generator=torch.Generator()), sigma_grid(1))
