"""Stage 1: the neighbours of a base noise, by their moments and by the formula written out."""

import numpy as np
import pytest
import torch

from trainer.stages.noise import base_noise, derive_seed, neighborhood, perturb

WIDE = (200_000,)  # elements: moments are then known to about 1 / sqrt(200_000) = .0022


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(noise: torch.Tensor) -> np.ndarray:
    """[G, G] second moments over the elements."""
    rows = noise.double().numpy()
    return rows @ rows.T / rows.shape[1]


def expected_covariance(strength: float, group_size: int) -> np.ndarray:
    return np.full((group_size, group_size), 1 - strength**2) + strength**2 * np.eye(group_size)


def test_base_noise_is_standard_normal_and_belongs_to_its_seed():
    noise = base_noise(WIDE, 5)
    assert noise.dtype == torch.float32
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.var().item() - 1) < 0.015
    assert torch.equal(noise, base_noise(WIDE, 5))
    assert not torch.equal(noise, base_noise(WIDE, 6))


def test_noise_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    neighborhood(3, (4, 4), 0.3, 3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.8, 1.0])
def test_neighbours_have_unit_variance_and_covariance_one_minus_strength_squared(strength):
    noise = perturb(base_noise(WIDE, 1), strength, 4, generator=generator(2))
    np.testing.assert_allclose(covariance(noise), expected_covariance(strength, 4), atol=0.015)


@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_base_and_perturbations_of_one_seed_are_independent(strength):
    """With one stream of random numbers for both, the first neighbour would be a multiple of the base."""
    noise = neighborhood(11, WIDE, strength, 3)
    np.testing.assert_allclose(covariance(noise), expected_covariance(strength, 3), atol=0.015)
    shared = np.sqrt(1 - strength**2)
    for neighbour in noise:  # cov(base, eps_i) = sqrt(1 - s^2), the same for all
        assert (neighbour * base_noise(WIDE, 11)).mean().item() == pytest.approx(shared, abs=0.01)


def test_each_neighbour_is_the_equation_written_out():
    base = base_noise((2, 3), 1)
    delta = torch.randn((3, 2, 3), generator=generator(7)).numpy()
    noise = perturb(base, 0.6, 3, generator=generator(7)).numpy()
    for i in range(3):
        for element in np.ndindex(2, 3):
            expected = 0.8 * base.numpy()[element] + 0.6 * delta[(i, *element)]  # sqrt(1 - .36) = .8
            assert noise[(i, *element)] == pytest.approx(expected, abs=1e-6)


def test_strength_one_forgets_the_base():
    first = perturb(base_noise((50,), 1), 1.0, 2, generator=generator(3))
    other = perturb(base_noise((50,), 2), 1.0, 2, generator=generator(3))
    assert torch.equal(first, other)


def test_a_neighborhood_belongs_to_its_seed():
    assert torch.equal(neighborhood(4, (3, 5), 0.3, 2), neighborhood(4, (3, 5), 0.3, 2))
    assert not torch.equal(neighborhood(4, (3, 5), 0.3, 2), neighborhood(5, (3, 5), 0.3, 2))


@pytest.mark.parametrize("strength", [0.0, -0.3, 1.01, float("nan")])
def test_strength_out_of_range_is_refused_with_its_value(strength):
    with pytest.raises(ValueError, match=f"strength.*{strength}"):
        perturb(torch.zeros(3), strength, 4, generator=generator(0))


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="group_size must be at least 2, got 1"):
        perturb(torch.zeros(3), 0.3, 1, generator=generator(0))


def test_seeds_differ_by_run_iteration_slot_and_order():
    paths = list(np.ndindex(3, 5, 20, 4))  # stream, run seed, iteration, slot
    seeds = {derive_seed(*path) for path in paths}
    assert len(seeds) == len(paths)
    assert derive_seed(1, 2) != derive_seed(2, 1)


def test_seeds_fit_a_signed_integer_and_stay_the_same_between_releases():
    """A run resumed under a later release must draw what the earlier one would have drawn."""
    seeds = [derive_seed(0, i) for i in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # all 63 bits are in use
    words = np.random.SeedSequence((3, 1, 4)).generate_state(2, np.uint32).tolist()  # low word first
    assert derive_seed(3, 1, 4) == (words[0] + 2**32 * words[1]) // 2


@pytest.mark.parametrize("group_size", [2, 5, 6])
def test_antithetic_neighbours_lie_on_either_side_of_the_base(group_size):
    base = base_noise(WIDE, 1)
    found = perturb(base, 0.6, group_size, generator=generator(2), antithetic=True)
    pairs = found[: group_size - group_size % 2].unflatten(0, (-1, 2))
    torch.testing.assert_close(pairs.mean(1), (0.8 * base).expand(len(pairs), *WIDE))
    np.testing.assert_allclose(np.diag(covariance(found)), 1, atol=0.015)
    assert len(found) == group_size
    free = perturb(base, 0.6, group_size, generator=generator(2))
    assert torch.equal(found[::2], free[::2])
    assert torch.equal(
        neighborhood(3, (4,), 0.6, group_size, antithetic=True)[0], neighborhood(3, (4,), 0.6, group_size)[0]
    )
