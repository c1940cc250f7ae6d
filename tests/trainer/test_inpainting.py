"""Inpainting: outside the mask nothing is drawn, compared or trained."""

from dataclasses import replace

import pytest
import torch
from host_reads import HostReads
from leaping import accumulate_gradient

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of, sample_candidates
from trainer.engine.setup import assemble
from trainer.engine.state import new_state
from trainer.settings.config import InitSettings
from trainer.settings.config_file import load_config
from trainer.stages.advantages import group_advantages, quasi_norm_reweight
from trainer.stages.anchors import Pairs
from trainer.stages.inpainting import Init, Unmasked
from trainer.stages.noise import neighborhood, partly_noised
from trainer.stages.rollout import Trajectories, rollout
from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS
from trainer.stages.surrogate import mean_pairwise_distance, pairwise_distances, softmax_temperature
from trainer.training.prepare import prepare
from trainer.training.report import final_latents

STEPS, G, LATENT = 4, 4, (3, 5)
HALF = torch.zeros(8, 8, dtype=torch.bool)
HALF[2:7, 1:5] = True  # cuts tokens in two


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def setup(config_file):
    return prepare(load_config(config_file(), [f"sampling.steps={STEPS}"]))


def painted(setup, mask, denoise=1.0, latents=None):
    latents = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3)) if latents is None else latents
    config = replace(setup.config, init=InitSettings(denoise=denoise, digest="of a graph's latent"))
    return assemble(config, setup.policy, setup.lora, setup.conditioning, setup.rewards, [Init(latents, mask)])


def candidates(setup):
    return sample_candidates(setup, 0, range(STEPS), Clock(setup.policy.device))


# ---- the rollout


def curved(x: torch.Tensor, sigma: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A velocity that mixes all elements of a latent: what is kept is seen by what is drawn."""
    return torch.sin(3 * x) + x.flatten(1).mean(1).view(-1, 1, 1) - sigma.view(-1, 1, 1)


DRAWN = torch.arange(15).view(LATENT) % 3 == 0
GRID = sigma_grid(6, 3.0, 0.7)
ROWS = torch.zeros(G, dtype=torch.long)


def test_a_rollout_around_a_region_never_waits_for_the_device():
    z, eps = normal(1, G, *LATENT), normal(2, G, *LATENT)
    unmasked = Unmasked.of(DRAWN, z, eps)
    with HostReads() as reads:
        rollout(curved, eps, ROWS, GRID, SOLVERS["dpm++2m"], range(6), unmasked)
    assert reads.seen == []


@pytest.fixture
def path():
    z, eps = normal(1, G, *LATENT), normal(2, G, *LATENT)
    return z, eps, partly_noised(z, eps, GRID[0].item())


def overwritten(solver: str, begin, z, eps) -> list[torch.Tensor]:
    """x_0 ... x_T of the solver's formula where the known region is overwritten after every step."""
    states, x, previous = [begin], begin, None
    for s, s_next in zip(GRID.tolist(), GRID[1:].tolist(), strict=False):
        v = curved(x, torch.full((G,), s, dtype=torch.float64), ROWS)
        if solver == "euler":
            x = x + (s_next - s) * v
        elif solver == "ab2":
            h = s_next - s
            slope = v if previous is None else v + h / (2 * previous[1]) * (v - previous[0])
            x, previous = x + h * slope, (v, h)
        else:
            x_0, lam = x - s * v, torch.log(torch.tensor((1 - s) / s, dtype=torch.float64))
            estimate = x_0
            if previous is not None and s_next > 0:
                step = torch.log(torch.tensor((1 - s_next) / s_next, dtype=torch.float64)) - lam
                estimate = x_0 + step / (2 * (lam - previous[1])) * (x_0 - previous[0])
            x, previous = s_next / s * x + (1 - s_next / s) * estimate, (x_0, lam)
        x = torch.where(DRAWN, x, (1 - s_next) * z + s_next * eps)
        states.append(x)
    return states


@pytest.mark.parametrize("solver", ["euler", "ab2", "dpm++2m"])
def test_it_is_the_solver_with_the_known_region_overwritten_after_every_step(solver, path):
    z, eps, begin = path
    expected = overwritten(solver, begin, z, eps)
    found = rollout(curved, begin, ROWS, GRID, SOLVERS[solver], range(6), Unmasked.of(DRAWN, z, eps))
    torch.testing.assert_close(found.x, torch.stack(expected[:-1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.x_next, torch.stack(expected[1:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_state_outside_the_mask_is_the_picture_noised_by_the_trajectorys_own_noise(solver, path):
    z, eps, begin = path
    found = rollout(curved, begin, ROWS, GRID, SOLVERS[solver], range(6), Unmasked.of(DRAWN, z, eps))
    for s, x in zip(GRID[1:].tolist(), found.x_next, strict=True):
        torch.testing.assert_close(x[:, ~DRAWN], ((1 - s) * z + s * eps)[:, ~DRAWN], rtol=0, atol=1e-12)
    assert torch.equal(found.x_0[:, ~DRAWN], z[:, ~DRAWN])  # at the end the picture itself
    free = rollout(curved, begin, ROWS, GRID, SOLVERS[solver])
    assert (found.x_0 - free.x_0)[:, DRAWN].abs().min() > 1e-3  # what is drawn sees what is kept


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_mask_of_all_is_image_to_image_bit_for_bit(solver, path):
    z, eps, begin = (t.float() for t in path)
    everything = Unmasked.of(torch.ones(LATENT, dtype=torch.bool), z, eps)
    masked, plain = (
        rollout(curved, begin, ROWS, GRID, SOLVERS[solver], range(6), unmasked) for unmasked in (everything, None)
    )
    for name in ("x_0", "x", "v", "x_next"):
        assert torch.equal(getattr(masked, name), getattr(plain, name))
    assert torch.equal(masked.inside(masked.x_next), plain.x_next.flatten(2))
    some = masked.only([4, 2])
    assert torch.equal(some.inside(some.x_next), plain.x_next[[2, 4]].flatten(2))


def test_dpmpp_2m_keeps_its_order_inside_the_mask(path):
    """The kept region does not disturb the history that makes it a method of second order."""
    z, eps, _ = path

    def end(steps: int) -> torch.Tensor:
        grid = sigma_grid(steps, 1.0, 0.5)
        begin = partly_noised(z, eps, grid[0].item())
        return rollout(curved, begin, ROWS, grid, SOLVERS["dpm++2m"], unmasked=Unmasked.of(DRAWN, z, eps)).x_0[:, DRAWN]

    exact = end(1024)
    coarse, fine = ((end(steps) - exact).abs().max().item() for steps in (32, 64))
    assert coarse / fine > 3.2  # a first-order method would halve it


# ---- the update


@pytest.fixture
def case():
    """Trajectories of one group with a known region, advantages, temperature, and the pair of anchor 1 at step 0."""
    x, v, x_next = (normal(s, 1, G, *LATENT).float() for s in (1, 2, 3))
    drawn = DRAWN.flatten().nonzero().squeeze(1)
    kept = Trajectories(x_next[0], [0], torch.tensor([0.5]), torch.tensor([-0.2]), x, v, x_next, drawn)
    advantages = quasi_norm_reweight(group_advantages(normal(4, 1, G).float())[0], 0.8)
    pairs = Pairs(*(torch.tensor([n]) for n in (0, 1, 0)))
    return kept, pairs, advantages


def gradient(case, tau, **options) -> torch.Tensor:
    kept, pairs, advantages = case
    v_theta = kept.v[0, 1:2].clone().requires_grad_()
    options = {"clip": 0.2, "micro_batch": 1, "normaliser": 1, **options}
    accumulate_gradient(lambda *_: v_theta, kept, pairs, advantages, torch.tensor([[tau]]), **options)
    return v_theta.grad[0]


def test_the_force_field_is_the_closed_form_inside_the_mask_and_zero_outside(case):
    """-(2 / tau) (s_{j+1} - s_j) sum_i A'_i x_{j+1}^(i) where it is drawn; what is kept has no gradient at all."""
    kept, _, advantages = case
    force = sum(advantages[0, i] * kept.x_next[0, i] for i in range(G))
    found = gradient(case, 1.7)
    torch.testing.assert_close(found[DRAWN], (-2 / 1.7 * -0.2 * force)[DRAWN], atol=1e-6, rtol=1e-4)
    assert torch.equal(found[~DRAWN], torch.zeros_like(found[~DRAWN]))
    assert force[~DRAWN].abs().min() > 1e-3  # it would have had one


def test_velocities_are_compared_inside_the_mask(case):
    kept, pairs, advantages = case
    elsewhere = torch.where(DRAWN, kept.v[0, 1:2], kept.v[0, 1:2] + 1).requires_grad_()
    options = {"clip": 0.2, "micro_batch": 1, "normaliser": 1}
    found = accumulate_gradient(lambda *_: elsewhere, kept, pairs, advantages, torch.tensor([[1.7]]), **options)
    assert found.velocity_error == 0


def test_candidates_that_differ_outside_the_mask_alone_change_nothing(case):
    kept, pairs, advantages = case
    elsewhere = torch.where(DRAWN, kept.x_next, kept.x_next + normal(7, 1, G, *LATENT).float())
    other = (replace(kept, x_next=elsewhere), pairs, advantages)
    reference = {"reference": lambda *_: normal(8, 1, *LATENT).float(), "kl_weight": 0.5}
    assert torch.equal(gradient(case, 1.7, **reference), gradient(other, 1.7, **reference))
    assert torch.equal(kept.inside(kept.x_next), other[0].inside(elsewhere))


def test_permuting_the_candidates_permutes_nothing_else(case):
    kept, pairs, advantages = case
    order = torch.tensor([2, 1, 3, 0])  # the anchor stays in its place
    other = (replace(kept, x_next=kept.x_next[:, order]), pairs, advantages[:, order])
    torch.testing.assert_close(gradient(other, 1.7), gradient(case, 1.7))


@pytest.mark.parametrize("mode", ["scale-free", "element-mean"])
def test_the_temperature_counts_what_is_drawn(case, mode):
    kept, _, _ = case
    inside = kept.inside(kept.x_next)
    picked = kept.x_next[..., DRAWN]
    assert torch.equal(inside, picked)
    expected = {"scale-free": mean_pairwise_distance(picked), "element-mean": torch.tensor([2.0 * DRAWN.sum()])}[mode]
    scale = 1.0 if mode == "scale-free" else 2.0
    torch.testing.assert_close(softmax_temperature(inside, scale, mode), expected)


# ---- with the model


@pytest.mark.also_on_card
def test_outside_the_mask_every_candidate_ends_at_the_init_latent_exactly(setup):
    inpainting = painted(setup, HALF, 0.8)
    ends = inpainting.geometry.unpack(candidates(inpainting).trajectories.x_0).cpu()
    init = inpainting.init.latents[0]
    assert all(torch.equal(end[:, ~HALF], init[:, ~HALF]) for end in ends)
    assert all((end - init)[:, HALF].abs().mean() > 0.1 for end in ends)


@pytest.mark.also_on_card
def test_a_mask_of_all_at_denoise_1_is_text_to_image_bit_for_bit_and_trains_alike(setup):
    everything = painted(setup, torch.ones(8, 8, dtype=torch.bool))
    assert torch.equal(candidates(everything).images, candidates(setup).images)
    start = {name: p.detach().clone() for name, p in setup.lora.items()}
    moved = []
    for one in (setup, everything):
        with torch.no_grad():
            for name, p in setup.lora.items():
                p.copy_(start[name])
        group = collect(one, 0, Clock(one.policy.device))
        improve(one, new_state(one), group, pairs_of(one, group, 0))
        moved.append({name: p.detach().clone() for name, p in setup.lora.items()})
    assert all(torch.equal(moved[0][name], moved[1][name]) for name in start)
    assert any(not torch.equal(moved[0][name], start[name]) for name in start)


@pytest.mark.also_on_card
def test_at_denoise_1_a_mask_begins_at_the_noise_and_keeps_the_rest(setup):
    inpainting = painted(setup, HALF)
    found, grpo = candidates(inpainting), setup.config.grpo
    noise = neighborhood(found.seeds[0], (16, 8, 8), grpo.strength, grpo.group_size)
    assert torch.equal(found.trajectories.x[0][: grpo.group_size].cpu(), inpainting.geometry.pack(noise))


@pytest.mark.also_on_card
def test_an_update_starts_from_ratio_1_and_distances_are_those_inside(setup):
    inpainting = painted(setup, HALF, 0.8)
    group = collect(inpainting, 0, Clock(setup.policy.device))
    metrics, skipped = improve(inpainting, new_state(inpainting), group, pairs_of(inpainting, group, 0))
    assert not skipped
    assert metrics["ratio_error"] == 0
    ends = inpainting.geometry.unpack(group.candidates.trajectories.x_0)[:, :, HALF].unflatten(0, (2, G))
    found = final_latents(group)
    assert found.shape == (2, G, 16 * HALF.sum())
    torch.testing.assert_close(pairwise_distances(found), pairwise_distances(ends))


@pytest.mark.also_on_card
def test_every_prompt_begins_from_its_own_latent(setup):
    latents = torch.stack([torch.full((16, 8, 8), float(n)) for n in range(3)])
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, 0] = True
    found = candidates(painted(setup, mask, latents=latents))
    kept = setup.geometry.unpack(found.trajectories.x_0)[:, 0, 4, 4].unflatten(0, (2, G))
    assert kept.tolist() == [[float(prompt)] * G for prompt in found.prompts]
    assert len(set(found.prompts)) == 2
