"""The solvers on a Gaussian target, where the exact flow is known, and against diffusers' schedulers.

For x_0 ~ N(m, c^2) the noised x_s = (1 - s) x_0 + s eps has the standard deviation d(s) = sqrt((1 - s)^2 c^2 + s^2),
and the flow carries z, the noise at s = 1, along x_s(z) = (1 - s) m + d(s) z.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS

Z = torch.tensor([-2.0, -0.5, 0.3, 1.0, 1.7], dtype=torch.float64)
ORDERS = {"euler": 1, "dpm++2m": 2, "ab2": 2, "heun": 2}


@dataclass(frozen=True)
class Gaussian:
    m: float
    c: float

    def state(self, z: torch.Tensor, s: float) -> torch.Tensor:
        return (1 - s) * self.m + math.hypot((1 - s) * self.c, s) * z

    def velocity(self, x: torch.Tensor, s: float) -> torch.Tensor:
        """d x_s(z) / ds at the z that is at x: -m + d'(s) z, with d' = (s - (1 - s) c^2) / d."""
        d = math.hypot((1 - s) * self.c, s)
        z = (x - (1 - s) * self.m) / d
        return -self.m + (s - (1 - s) * self.c**2) / d * z


def solve(name: str, velocity, x: torch.Tensor, grid) -> torch.Tensor:
    return list(SOLVERS[name](velocity, x, list(grid)))[-1][2]


def error(name: str, target: Gaussian, grid) -> float:
    end = solve(name, target.velocity, target.state(Z, grid[0]), grid)
    return (end - target.state(Z, grid[-1])).abs().max().item()


def fitted_order(name: str, target: Gaussian, grid_of) -> float:
    """Minus the slope of log error over log T, T = 16 .. 128."""
    steps = [16, 32, 64, 128]
    errors = [error(name, target, grid_of(t)) for t in steps]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def test_the_closed_form_velocity_is_the_derivative_of_the_exact_flow():
    target = Gaussian(1.0, 0.5)
    for s in (0.1, 0.5, 0.9):
        difference = (target.state(Z, s + 1e-6) - target.state(Z, s - 1e-6)) / 2e-6
        torch.testing.assert_close(target.velocity(target.state(Z, s), s), difference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_error_falls_at_the_solvers_order_between_the_ends(name):
    """Away from sigma 1 and 0, where DPM-Solver++'s variable lambda is infinite, every order is clean."""
    order = fitted_order(name, Gaussian(1.0, 0.5), lambda steps: np.linspace(0.9, 0.1, steps + 1).tolist())
    assert order == pytest.approx(ORDERS[name], abs=0.1)


@pytest.mark.parametrize("name", ["euler", "ab2", "heun"])
def test_error_falls_at_the_solvers_order_on_the_whole_grid(name):
    """First-order steps at the ends (AB2's first, Heun's last) have a local error of h^2 and cost no order."""
    order = fitted_order(name, Gaussian(1.0, 0.5), lambda steps: sigma_grid(steps).tolist())
    assert order == pytest.approx(ORDERS[name], abs=0.12)


def test_dpm_solver_loses_less_than_half_an_order_to_the_infinite_ends():
    """k steps from an end, a step in lambda is about 1 / k however large T: the errors 1 / (k T^2) add up to
    log(T) / T^2, a slope of about 1.7 between 16 and 128 steps instead of 2."""
    order = fitted_order("dpm++2m", Gaussian(0.0, 2.0), lambda steps: sigma_grid(steps).tolist())
    assert 1.6 < order < 2.05


@pytest.mark.parametrize("name", ["dpm++2m", "ab2", "heun"])
@pytest.mark.parametrize(("target", "shift"), [(Gaussian(1.0, 0.5), 1.0), (Gaussian(0.0, 2.0), 3.0)])
def test_eight_second_order_steps_beat_eight_euler_steps(name, target, shift):
    grid = sigma_grid(8, shift).tolist()
    assert error(name, target, grid) < 0.4 * error("euler", target, grid)


@pytest.mark.parametrize("name", SOLVERS)
def test_straight_paths_are_solved_exactly_in_any_number_of_steps(name):
    """A target that is a single point m: x moves on a line, and v = (x - m) / s."""
    for steps in (1, 3, 8):
        end = solve(name, lambda x, s: (x - 0.7) / s, Z, sigma_grid(steps, 3.0).tolist())
        torch.testing.assert_close(end, torch.full_like(Z, 0.7), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_steps_are_chained_and_hold_the_velocity_at_their_own_state(name):
    target, grid = Gaussian(1.0, 0.5), sigma_grid(5, 3.0).tolist()
    steps = list(SOLVERS[name](target.velocity, Z, grid))
    assert len(steps) == 5
    assert torch.equal(steps[0][0], Z)
    for (_, _, end), (start, _, _) in zip(steps, steps[1:], strict=False):
        assert torch.equal(end, start)
    for (x, v, _), s in zip(steps, grid, strict=False):
        assert torch.equal(v, target.velocity(x, s))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_evaluates_the_velocity_as_often_as_it_says_and_never_at_sigma_zero(name):
    seen = []

    def velocity(x, s):
        seen.append(s)
        return x

    solve(name, velocity, Z, sigma_grid(6).tolist())
    assert len(seen) == SOLVERS[name].evaluations(6)
    assert min(seen) > 0


def test_euler_is_diffusers_flow_matching_scheduler():
    target, steps = Gaussian(1.0, 0.5), 8
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    x = Z.float()
    for t, s in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        x = scheduler.step(target.velocity(x, s), t, x, return_dict=False)[0]
    torch.testing.assert_close(solve("euler", target.velocity, Z, sigma_grid(steps, 3.0).tolist()).float(), x)


@pytest.mark.parametrize("steps", [4, 8, 20])
def test_dpm_solver_is_diffusers_on_diffusers_own_grid(steps):
    """Its grid starts at sigma .9997, below the infinite end, and its last step goes to 0 at first order like ours."""
    target = Gaussian(1.0, 0.5)
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
    )
    scheduler.set_timesteps(steps)
    grid = scheduler.sigmas.tolist()
    x = Z.clone()
    for t, s in zip(scheduler.timesteps, grid, strict=False):
        x = scheduler.step(target.velocity(x, s), t, x, return_dict=False)[0]
    torch.testing.assert_close(solve("dpm++2m", target.velocity, Z, grid), x.double(), rtol=0, atol=2e-6)


def test_dpm_solver_steps_that_touch_an_end_are_first_order():
    """From sigma 1, the first two steps and the last know no finite lambda: with three steps nothing is left but
    x_next = (s_next / s) x + (1 - s_next / s) x_0, which is Euler's step."""
    target, grid = Gaussian(1.0, 0.5), [1.0, 0.6, 0.3, 0.0]
    torch.testing.assert_close(
        solve("dpm++2m", target.velocity, Z, grid), solve("euler", target.velocity, Z, grid), rtol=0, atol=1e-12
    )
    finer = [1.0, 0.8, 0.6, 0.3, 0.0]
    assert (solve("dpm++2m", target.velocity, Z, finer) - solve("euler", target.velocity, Z, finer)).abs().max() > 0.01


def test_heun_and_adams_bashforth_are_exact_where_the_velocity_is_linear_in_sigma():
    """v = 2 s, so x(s) = x(1) + s^2 - 1. Only AB2's first and Heun's last step err, by the square of their size."""
    grid = [1.0, 0.9, 0.4, 0.3, 0.0]  # uneven on purpose

    def velocity(x, s):
        return torch.full_like(x, 2 * s)

    torch.testing.assert_close(solve("ab2", velocity, Z, grid), Z - 1 - 0.1**2)
    torch.testing.assert_close(solve("heun", velocity, Z, grid), Z - 1 - 0.3**2)
    torch.testing.assert_close(solve("heun", velocity, Z, grid[:-1]), Z + 0.3**2 - 1)
