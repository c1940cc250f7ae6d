"""FLUX's packing and positions, against diffusers' own pipeline."""

import pytest
import torch
from diffusers import FluxPipeline

from trainer.models.flux1.geometry import Geometry

SIZES = [(64, 64), (96, 48), (16, 80), (1024, 768)]  # width, height


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_packing_and_unpacking_are_diffusers(width, height):
    geometry = Geometry(width, height)
    latent = torch.randn(2, *geometry.latent_shape, generator=torch.Generator().manual_seed(0))
    packed = FluxPipeline._pack_latents(latent, 2, 16, height // 8, width // 8)
    assert torch.equal(geometry.pack(latent), packed)
    assert torch.equal(FluxPipeline._unpack_latents(packed, height, width, 8), latent)
    assert torch.equal(geometry.unpack(packed), latent)
    assert packed.shape == (2, geometry.tokens, 64)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_positions_are_diffusers(width, height):
    expected = FluxPipeline._prepare_latent_image_ids(1, height // 16, width // 16, "cpu", torch.float32)
    positions = Geometry(width, height).position_ids()
    assert torch.equal(positions, expected)
    assert positions.dtype == torch.float32


def test_a_wide_picture_has_more_columns_than_rows():
    wide = Geometry(width=96, height=48)
    assert (wide.rows, wide.columns, wide.tokens) == (3, 6, 18)
    assert wide.latent_shape == (16, 6, 12)
    assert Geometry(1024, 1024).tokens == 4096


def test_a_token_holds_the_four_latents_of_its_own_square():
    """Token (row 1, column 2) of a 3 x 4 grid; channels come in order channel, row, column."""
    geometry = Geometry(64, 48)
    latent = torch.arange(16 * 6 * 8.0).view(1, 16, 6, 8)
    token = geometry.pack(latent)[0, 1 * 4 + 2]
    square = latent[0, :, 2:4, 4:6]  # [16, 2, 2]
    assert token.tolist() == [square[c, r, k].item() for c in range(16) for r in range(2) for k in range(2)]


@pytest.mark.parametrize(("pixels", "suggestion"), [(0, 16), (-32, 16), (8, 16), (100, 96), (1000, 992), (1023, 1008)])
@pytest.mark.parametrize("side", ["width", "height"])
def test_a_size_that_is_not_a_multiple_of_16_is_refused_with_one_that_is(side, pixels, suggestion):
    with pytest.raises(ValueError, match=f"{side} must be a multiple of 16 pixels, got {pixels}: try {suggestion}$"):
        Geometry(**{"width": 64, "height": 64, side: pixels})
