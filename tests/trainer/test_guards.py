"""What holds the policy to the model without its LoRA: divergences of velocities."""

import pytest
import torch

from trainer.choices import NORM, VELOCITY
from trainer.stages.guards import divergence, norm_ratio

M, SHAPE = 5, (3, 4)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(M, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [VELOCITY, NORM])
def test_the_same_velocity_diverges_by_nothing(kind):
    v = normal(0)
    assert divergence(v, v, kind).tolist() == [0] * M


def test_of_the_velocity_every_direction_counts():
    """Along each element alone, the candidates' span or not: the same share of the reference's square."""
    v, step = normal(0), 0.1
    for element in range(v[0].numel()):
        moved = v.clone().flatten(1)
        moved[:, element] += step
        expected = step**2 / v.flatten(1).square().sum(1)
        torch.testing.assert_close(divergence(moved.view_as(v), v, VELOCITY), expected)


def test_its_gradient_pulls_back():
    v, reference = normal(0).requires_grad_(True), normal(1)
    divergence(v, reference, VELOCITY).sum().backward()
    scale = 2 / reference.flatten(1).square().sum(1)
    torch.testing.assert_close(v.grad, (v.detach() - reference) * scale.view(-1, 1, 1))


@pytest.mark.parametrize(("longer", "expected"), [(1.5, 0.25), (1.0, 0.0), (0.5, 0.0)])
def test_only_a_longer_velocity_is_held_back(longer, expected):
    reference = normal(2)
    v = (longer * reference).requires_grad_(True)
    found = divergence(v, reference, NORM)
    torch.testing.assert_close(found, torch.full((M,), expected), atol=1e-6, rtol=1e-5)
    found.sum().backward()
    along = (v.grad * reference).flatten(1).sum(1)
    assert ((along > 0) == (longer > 1)).all()


def test_the_ratio_of_norms():
    torch.testing.assert_close(norm_ratio(-3 * normal(0), normal(0)), torch.full((M,), 3.0))


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="velocity or norm, got 'policy'"):
        divergence(normal(0), normal(1), "policy")
