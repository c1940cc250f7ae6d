"""Rewards without a model, against numpy on the paper's formula and PIL's own JPEG files."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.rewards.pixels import Colourfulness, Sharpness, jpeg_compressibility, jpeg_incompressibility

SHAPE = (3, 24, 40)  # not square, so that a swap of height and width shows


@pytest.fixture
def images() -> torch.Tensor:
    """Noise, a smooth gradient, and a plain colour; between the levels of 8 bits, as decoded pictures are."""
    noise = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, SHAPE[2]).expand(SHAPE).clone()
    ramp[1] *= 0.5
    plain = torch.tensor([0.8, 0.2, 0.4]).view(3, 1, 1).expand(SHAPE)
    return torch.stack([noise, ramp, plain])


def pixels_of(image: torch.Tensor) -> np.ndarray:
    """[height, width, 3] of 0 .. 255."""
    return np.moveaxis(image.numpy(), 0, -1) * 255.0


def hasler_suesstrunk(image: torch.Tensor) -> float:
    """Equations 1 to 4 of "Measuring colourfulness in natural images" (2003), the simple metric M(3)."""
    r, g, b = np.moveaxis(pixels_of(image).astype(np.float64), -1, 0)
    rg, yb = r - g, 0.5 * (r + g) - b
    sigma = np.sqrt(np.var(rg) + np.var(yb))
    mu = np.sqrt(np.mean(rg) ** 2 + np.mean(yb) ** 2)
    return sigma + 0.3 * mu


def test_colourfulness_is_hasler_and_suesstrunks(images):
    expected = [hasler_suesstrunk(image) for image in images]
    assert Colourfulness().score(images, [""] * 3).tolist() == pytest.approx(expected, rel=1e-5)


def test_grey_has_no_colour_at_any_brightness():
    grey = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    assert Colourfulness().score(grey, [""]).item() == pytest.approx(0, abs=1e-4)


def test_colourfulness_of_two_flat_pictures_in_closed_form():
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert Colourfulness().score(red, [""]).item() == pytest.approx(0.3 * math.hypot(255, 127.5), rel=1e-5)
    half = red.clone()
    half[:, :, :2] = torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1)  # rg = -255 and 255, yb = 127.5 all over
    assert Colourfulness().score(half, [""]).item() == pytest.approx(255 + 0.3 * 127.5, rel=1e-5)


def test_compressibility_is_the_size_of_pils_jpeg_file(images):
    expected = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(pixels_of(image).round().astype(np.uint8), "RGB").save(buffer, format="JPEG", quality=95)
        expected.append(-len(buffer.getvalue()) / 1000 / 500)  # -kB / 500
    found = jpeg_compressibility().score(images, [""] * 3)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert found.argmin() == 0  # noise is the largest file
    assert found.argmax() == 2  # a plain colour the smallest


@pytest.mark.parametrize(
    "reward", [Colourfulness(), Sharpness(), jpeg_compressibility()], ids=["colour", "sharp", "jpeg"]
)
def test_pictures_are_scored_each_on_its_own(reward, images):
    together = reward.score(images, [""] * 3)
    alone = [reward.score(image[None], [""]).item() for image in images]
    assert together.tolist() == pytest.approx(alone, rel=1e-6)
    assert together.shape == (3,)
    assert together.dtype == torch.float32


def test_sharpness_is_the_mean_gradient_of_the_brightness(images):
    expected = []
    for image in images:
        y = pixels_of(image).astype(np.float64) @ [0.299, 0.587, 0.114]
        steps = [
            math.hypot(y[i, j + 1] - y[i, j], y[i + 1, j] - y[i, j])
            for i in range(y.shape[0] - 1)
            for j in range(y.shape[1] - 1)
        ]
        expected.append(sum(steps) / len(steps))
    assert Sharpness().score(images, [""] * 3).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_blurring_takes_sharpness_away_and_brightness_does_not(images):
    noise = images[:1]
    blurred = torch.nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
    brighter = noise * 0.5 + 0.5
    sharp, soft, bright, half = Sharpness().score(torch.cat([noise, blurred, brighter, noise * 0.5]), [""] * 4).tolist()
    assert soft < 0.5 * sharp
    assert bright == pytest.approx(half, rel=1e-4) == pytest.approx(sharp / 2, rel=1e-4)


def test_incompressibility_is_the_size_in_thousands_of_kilobytes(images):
    compressible = jpeg_compressibility().score(images, [""] * 3)
    found = jpeg_incompressibility().score(images, [""] * 3)
    assert found.tolist() == pytest.approx((compressible * -500 / 1000).tolist(), rel=1e-6)
    assert found.argmax() == 0  # noise
