"""Trajectories, micro-batches and decoding, with a toy velocity whose every call is recorded."""

import numpy as np
import pytest
import torch

from trainer.stages.decode import decode
from trainer.stages.rollout import fill, micro_batched, rollout
from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS

N, LATENT = 5, (2, 3)
TARGETS = torch.tensor([[0.5], [-1.0]])  # one per condition


def velocity(x, sigma, rows):
    """Depends on state, time and condition, each in its own way."""
    shape = (-1, *[1] * (x.dim() - 1))
    return torch.tanh(x) * (1 + sigma.view(shape)) - TARGETS[rows].view(shape)


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn((N, *LATENT), generator=torch.Generator().manual_seed(0))


ROWS = torch.tensor([0, 0, 1, 1, 0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_kept_steps_are_the_solvers_own_states_and_velocities(solver, noise):
    sigmas = sigma_grid(6, 3.0)
    kept = rollout(velocity, noise, ROWS, sigmas, SOLVERS[solver], kept=[4, 0, 1])
    assert kept.steps == [0, 1, 4]
    for row in range(N):  # one trajectory at a time
        alone = list(
            SOLVERS[solver](
                lambda x, s, row=row: velocity(x, torch.full((1,), s), ROWS[row : row + 1]),
                noise[row : row + 1],
                sigmas.tolist(),
            )
        )
        for place, j in enumerate([0, 1, 4]):
            for stored, expected in zip((kept.x, kept.v, kept.x_next), alone[j], strict=True):
                torch.testing.assert_close(stored[place, row], expected[0])
        torch.testing.assert_close(kept.x_0[row], alone[-1][2][0])


def test_euler_trajectory_is_the_sum_of_its_steps(noise):
    sigmas = sigma_grid(4).tolist()
    kept = rollout(velocity, noise, ROWS, sigma_grid(4), SOLVERS["euler"], kept=range(4))
    x = noise.double()
    for j in range(4):
        torch.testing.assert_close(kept.x[j].double(), x, atol=1e-5, rtol=0)
        x = x + (sigmas[j + 1] - sigmas[j]) * velocity(x, torch.full((N,), sigmas[j], dtype=torch.float64), ROWS)
    torch.testing.assert_close(kept.x_0.double(), x, atol=1e-5, rtol=0)


def test_step_sizes_are_differences_of_the_double_precision_grid(noise):
    """Subtracting sigmas that were rounded to float32 first would lose the last digits of a small step."""
    sigmas = sigma_grid(50, 3.0)
    kept = rollout(velocity, noise, ROWS, sigmas, SOLVERS["euler"], kept=range(50))
    grid = sigmas.numpy()
    assert kept.step_size.numpy().tolist() == np.diff(grid).astype(np.float32).tolist()
    assert kept.sigma.numpy().tolist() == grid[:-1].astype(np.float32).tolist()
    assert (kept.step_size < 0).all()


def test_last_kept_step_ends_at_the_clean_latents(noise):
    kept = rollout(velocity, noise, ROWS, sigma_grid(3), SOLVERS["dpm++2m"], kept=[2])
    assert torch.equal(kept.x_next[0], kept.x_0)


def test_nothing_is_kept_unless_asked_for_and_the_noise_is_left_as_it_was(noise):
    before = noise.clone()
    kept = rollout(velocity, noise, ROWS, sigma_grid(3), SOLVERS["heun"])
    assert kept.x.shape == (0, N, *LATENT)
    assert kept.x_0.shape == (N, *LATENT)
    assert torch.equal(noise, before)


def test_rollout_builds_no_graph(noise):
    weight = torch.ones(1, requires_grad=True)
    kept = rollout(lambda x, s, r: weight * x, noise, ROWS, sigma_grid(3), SOLVERS["ab2"], kept=[0])
    assert not kept.x_0.requires_grad
    assert not kept.v.requires_grad


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_micro_batches_give_the_same_rows_in_the_same_order(size, noise):
    sigma = torch.linspace(0.1, 0.9, N)
    expected = velocity(noise, sigma, ROWS)
    torch.testing.assert_close(micro_batched(velocity, size)(noise, sigma, ROWS), expected)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_model_sees_one_batch_size_only_filled_up_with_the_last_row(size, noise):
    """Low-precision matrix products give other bits for other batch shapes."""
    seen = []

    def recording(x, sigma, rows):
        seen.append((x, sigma, rows))
        return x

    sigma = torch.linspace(0.1, 0.9, N)
    micro_batched(recording, size)(noise, sigma, ROWS)
    assert len(seen) == -(-N // size)
    for got, given in zip(zip(*seen, strict=True), (noise, sigma, ROWS), strict=True):
        assert all(len(batch) == size for batch in got)
        rows = torch.cat(got)
        for i in range(len(rows)):
            assert torch.equal(rows[i], given[min(i, N - 1)])


def test_a_short_last_batch_stays_short_where_copies_would_buy_nothing(noise):
    sizes = []

    def recording(x, sigma, rows):
        sizes.append((len(x), len(sigma), len(rows)))
        return x

    micro_batched(recording, 3, filled=False)(noise, torch.linspace(0.1, 0.9, N), ROWS)
    assert sizes == [(3, 3, 3), (2, 2, 2)]


def test_a_full_batch_is_passed_on_as_it_is(noise):
    assert fill(noise, N) is noise


def test_decode_returns_all_pictures_in_order_a_micro_batch_at_a_time():
    sizes = []

    def decoder(z):
        sizes.append(len(z))
        return z.expand(-1, 3, 2, 2) * 2

    latents = torch.arange(5.0).view(5, 1, 1, 1).requires_grad_()
    images = decode(decoder, latents, 2)
    assert sizes == [2, 2, 1]
    assert images[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]
    assert not images.requires_grad


def test_some_of_the_kept_steps_are_those_of_a_rollout_that_kept_them_alone():
    torch.manual_seed(0)
    noise, rows, sigmas = torch.randn(3, 5), torch.zeros(3, dtype=torch.long), sigma_grid(6)

    def velocity(x, sigma, rows):
        return torch.tanh(x) * sigma[:, None]

    everything = rollout(velocity, noise, rows, sigmas, SOLVERS["ab2"], range(6)).only([4, 1])
    alone = rollout(velocity, noise, rows, sigmas, SOLVERS["ab2"], [1, 4])
    assert everything.steps == alone.steps == [1, 4]
    for name in ("x_0", "sigma", "step_size", "x", "v", "x_next"):
        assert torch.equal(getattr(everything, name), getattr(alone, name))
