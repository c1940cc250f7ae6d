"""Image-to-image: trajectories that begin at a picture's latent, noised up to a sigma below 1."""

import math
from dataclasses import replace

import pytest
import torch

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of, sample_candidates
from trainer.engine.setup import assemble
from trainer.engine.state import new_state
from trainer.settings.config import InitSettings
from trainer.settings.config_file import load_config
from trainer.stages.inpainting import Init
from trainer.stages.noise import neighborhood, partly_noised
from trainer.stages.rollout import rollout
from trainer.stages.schedule import resolution_mu, sigma_grid
from trainer.stages.solvers import SOLVERS
from trainer.training.prepare import prepare

STEPS = 4


@pytest.fixture
def setup(config_file):
    return prepare(load_config(config_file(), [f"sampling.steps={STEPS}"]))


def begun(setup, init, denoise):
    config = replace(setup.config, init=InitSettings(denoise=denoise, digest="of a graph's latent"))
    return assemble(config, setup.policy, setup.lora, setup.conditioning, setup.rewards, [Init(init[None])])


def candidates(setup):
    return sample_candidates(setup, 0, range(STEPS), Clock(setup.policy.device))


def picture(setup) -> torch.Tensor:
    return torch.randn(setup.geometry.latent_shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("steps", [1, 4, 7])
@pytest.mark.parametrize("denoise", [0.1, 0.35, 0.6, 0.7, 1.0])
def test_the_grid_is_the_end_of_a_finer_one_as_comfyui_has_it(steps, denoise):
    """comfy.samplers.KSampler.set_steps: sigmas of int(steps / denoise) steps, the last steps + 1 of them."""
    whole = sigma_grid(int(steps / denoise), 3.0)
    assert torch.equal(sigma_grid(steps, 3.0, denoise), whole[-(steps + 1) :])


@pytest.mark.parametrize("denoise", [0, -0.5, 1.01, float("nan")])
def test_a_denoise_out_of_range_is_refused(denoise):
    with pytest.raises(ValueError, match="denoise must be above 0 and at most 1"):
        sigma_grid(4, 1.0, denoise)


@pytest.mark.also_on_card
def test_denoise_1_is_text_to_image_bit_for_bit(setup):
    assert torch.equal(candidates(begun(setup, picture(setup), 1.0)).images, candidates(setup).images)


@pytest.mark.also_on_card
def test_the_first_state_is_the_picture_noised_by_each_neighbour(setup):
    init, grpo = picture(setup), setup.config.grpo
    image_to_image = begun(setup, init, 0.5)
    found = candidates(image_to_image)
    sigma = image_to_image.sigmas[0].item()
    assert sigma == sigma_grid(2 * STEPS, math.exp(resolution_mu(setup.geometry.tokens)))[STEPS]
    noise = neighborhood(found.seeds[0], setup.geometry.latent_shape, grpo.strength, grpo.group_size)
    expected = setup.geometry.pack((1 - sigma) * init + sigma * noise)
    torch.testing.assert_close(found.trajectories.x[0][: grpo.group_size].cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.also_on_card
def test_less_denoise_stays_nearer_to_the_picture(setup):
    init = picture(setup)
    target = setup.geometry.pack(init[None]).to(setup.policy.device)
    ends = [candidates(begun(setup, init, d)).trajectories.x_0 for d in (0.05, 0.3, 0.7)]
    distances = [(end - target).square().mean().item() for end in ends]
    assert distances == sorted(distances)
    assert distances[0] < 0.1 * distances[-1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_begins_below_1_on_the_exact_path(solver):
    """v = eps - z is constant along a straight path, which every solver must follow exactly."""
    z, eps = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    grid = sigma_grid(4, 3.0, 0.5)
    begin = partly_noised(z, eps, grid[0].item())
    end = rollout(lambda x, sigma, rows: eps - z, begin, torch.zeros(3, dtype=torch.long), grid, SOLVERS[solver]).x_0
    torch.testing.assert_close(end, z, rtol=0, atol=1e-12)


@pytest.mark.also_on_card
def test_an_update_trains_the_steps_that_are_drawn_and_starts_from_ratio_1(setup):
    image_to_image = begun(setup, picture(setup), 0.5)
    group = collect(image_to_image, 0, Clock(setup.policy.device))
    before = {name: p.detach().clone() for name, p in setup.lora.items()}
    metrics, skipped = improve(image_to_image, new_state(image_to_image), group, pairs_of(image_to_image, group, 0))
    assert not skipped
    assert metrics["ratio_error"] == 0
    assert any(not torch.equal(before[name], p) for name, p in setup.lora.items())
