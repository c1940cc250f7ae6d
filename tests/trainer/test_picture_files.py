"""The one reader of pictures: what comes of each depth and turn, and what is refused in one line."""

import io
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from raw_pictures import of_bytes, raw_png, raw_tiff, read_mask, written
from server_requests import chunk

from trainer.errors import ConfigError
from trainer.picture_files import PIXELS, PictureError, Reader, TooLarge, digest, read_picture, read_pictures
from trainer.reward_server.pictures import File, Limits, check, decode
from trainer.rewards.references import pixels_of
from trainer.settings.paths import read_init

SIZE = 4, 2  # of the small pictures, width and height


# ---- depths: a row of black, 25 %, 50 % and white; the levels of 255 by hand

DEPTHS = {
    "8 bits": (np.array([[0, 64, 128, 255]], np.uint8), "a.png", {}),
    "16 bits": (np.array([[0, 16384, 32768, 65535]], np.uint16), "a.png", {}),
    "16 bits in TIFF": (np.array([[0, 16384, 32768, 65535]], np.uint16), "a.tif", {}),
    "16 bits, compressed": (np.array([[0, 16384, 32768, 65535]], np.uint16), "a.tif", {"compression": "tiff_lzw"}),
    "16 bits, big end first": (np.array([[0, 16384, 32768, 65535]], ">u2"), "a.tif", {}),
    "16 bits, white is 0": (np.array([[65535, 49151, 32767, 0]], np.uint16), "a.tif", {"tiffinfo": {262: 0}}),
    "32 bits": (np.array([[0, 16384, 32768, 65535]], np.int32), "a.tif", {}),
    "floating point": (np.array([[0, 0.25, 0.5, 1]], np.float32), "a.tif", {}),
    "floating point, overshot": (np.array([[-0.005, 0.25, 0.5, 1.005]], np.float32), "a.tif", {}),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_runs_from_black_to_white(tmp_path, depth):
    values, name, options = DEPTHS[depth]
    path = written(tmp_path, name, Image.fromarray(values), **options)
    assert read_mask(path).tolist() == [[0, 64, 128, 255]]
    assert np.asarray(read_picture(path)).tolist() == [[[level] * 3 for level in (0, 64, 128, 255)]]
    assert pixels_of(path).flatten(1)[0, :4].tolist() == pytest.approx([0, 64 / 255, 128 / 255, 1])


def test_all_16_bits_are_rounded_to_the_nearest_level(tmp_path):
    values = np.arange(65536, dtype=np.uint16)
    nearest = [(int(v) * 255 * 2 + 65535) // (2 * 65535) for v in values]  # in whole numbers; no value is half-way
    path = written(tmp_path, "all.png", Image.fromarray(values.reshape(256, 256)))
    assert read_mask(path).flatten().tolist() == nearest


def test_12_bits_and_signed_16_have_their_own_white(tmp_path):
    twelve = bytes([0x00, 0x04, 0x00, 0x80, 0x0F, 0xFF])  # 000 400 | 800 FFF
    assert read_mask(raw_tiff(tmp_path, 4, twelve, bits=12)).tolist() == [[0, 64, 128, 255]]
    signed = struct.pack("<4h", 0, 8192, 16384, 32767)
    assert read_mask(raw_tiff(tmp_path, 4, signed, bits=16, kind=2)).tolist() == [[0, 64, 128, 255]]


def test_16_bits_of_colour_and_of_alpha(tmp_path):
    colour = raw_png(1, 16, 2, struct.pack(">3H", 0x4000, 0x8000, 0xFFFF))
    assert read_picture(of_bytes(tmp_path, colour)).getpixel((0, 0)) == (64, 128, 255)
    alpha = raw_png(2, 16, 4, struct.pack(">4H", 0, 0x4000, 0, 0xFFFF))  # black at a quarter, and in full
    assert read_picture(of_bytes(tmp_path, alpha)).getpixel((0, 0)) == (191, 191, 191)
    assert read_mask(of_bytes(tmp_path, alpha)).tolist() == [[64, 255]]


def test_a_bilevel_mask_is_black_and_white(tmp_path):
    path = written(tmp_path, "a.png", Image.fromarray(np.array([[True, False]])))
    assert read_mask(path).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 255]], np.float32), "it has values from 0 to 255, must be from 0 to 1"),
        (np.array([[-1, 1]], np.float32), "it has values from -1 to 1, must be"),
        (np.array([[0, np.nan]], np.float32), "it has values from nan to nan, must be"),
        (np.array([[0, 70000]], np.int32), "it has values from 0 to 70000, must be from 0 to 65535"),
    ],
)
def test_values_beyond_white_are_refused(tmp_path, values, message):
    path = written(tmp_path, "a.tif", Image.fromarray(values))
    for read in (read_picture, read_mask):
        with pytest.raises(PictureError, match=message):
            read(path)


# ---- ink, palettes, and turns


def test_ink_and_palettes_are_what_they_look_like(tmp_path):
    ink = Image.new("CMYK", SIZE, (0, 255, 255, 0))
    palette = Image.new("P", SIZE, 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    lab = Image.new("LAB", SIZE, (136, 208, 195))  # L* 53, a* 80, b* 67, of 255, and a*, b* from -128
    for name, picture in {"ink.tif": ink, "palette.png": palette, "palette.gif": palette, "lab.tif": lab}.items():
        path = written(tmp_path, name, picture)
        tolerance = 12 if picture is lab else 2  # LAB has whole numbers
        assert read_picture(path).getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=tolerance)
        assert read_mask(path)[0, 0] == pytest.approx(0.299 * 255, abs=2)


# where the corner that is red in the file is shown, by the EXIF standard's "0th row, 0th column": left to right is
# (row, column), -1 the last; and whether width and height change places
CORNERS = {
    1: ((0, 0), False), 2: ((0, -1), False), 3: ((-1, -1), False), 4: ((-1, 0), False),
    5: ((0, 0), True), 6: ((0, -1), True), 7: ((-1, -1), True), 8: ((-1, 0), True),
}  # fmt: skip


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "lzw.tif", "deep.png", "deep.tif", "a.jpg"])
def test_a_turned_picture_stands_upright(tmp_path, name, orientation):
    deep = name.startswith("deep")
    pixels = np.zeros((16, 32), np.uint16 if deep else np.uint8)
    pixels[:8, :8] = 65535 if deep else 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"a.webp": {"lossless": True}, "lzw.tif": {"compression": "tiff_lzw"}}.get(name, {})
    path = written(tmp_path, name, Image.fromarray(pixels), exif=exif, **lossless)
    shown = np.asarray(read_picture(path))[..., 0]
    (row, column), swapped = CORNERS[orientation]
    assert shown.shape == ((32, 16) if swapped else (16, 32))
    assert shown[row, column] > 200
    assert (shown > 200).sum() == 64


def test_what_a_reward_server_gets_stands_upright_too():
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    file, limits, out = File("image/png", buffer.getvalue()), Limits(images=1, pixels=24), torch.empty(3, 6, 4)
    assert check([file], ["a"], limits) == [(4, 6)]
    decode(file, "images[0]", limits, out)
    assert np.array_equal((out * 255).round().permute(1, 2, 0).numpy(), np.rot90(pixels, -1))


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    first, second = Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "blue")
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        path = written(tmp_path, name, first, save_all=True, append_images=[second])
        assert read_picture(path).getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=2)


# ---- what is refused


@pytest.mark.parametrize("kind", ["DDS", "PPM", "ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000", "SGI"])
def test_only_the_formats_named_are_read(tmp_path, kind):
    path = written(tmp_path, "a.png", Image.new("RGB", (16, 16)), format=kind)
    with pytest.raises(PictureError, match="is no whole PNG, JPEG, WebP, BMP, TIFF or GIF file: save it as PNG"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_name_that_lies_about_the_format_is_fine_and_half_a_file_is_not(tmp_path, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    path = written(tmp_path, "photograph", noise, format=kind)
    assert read_picture(path).size == (40, 40)
    data = (tmp_path / "photograph").read_bytes()
    for length in (1, 9, 30, len(data) // 2, len(data) - 60):
        (tmp_path / "photograph").write_bytes(data[:length])
        with pytest.raises(PictureError, match="photograph is no whole PNG, ") as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400 + len(path)


def claimed(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "message"),
    [((10_000, 9_001), "is 10000 x 9001: at most 90000000 pixels"), ((2**31 - 1,) * 2, "is far too large: at most")],
)
def test_more_pixels_than_the_limit_are_not_decoded(tmp_path, size, message):
    assert PIXELS == 90_000_000
    with pytest.raises(TooLarge, match=message):
        read_picture(of_bytes(tmp_path, claimed(*size)))


def test_a_picture_at_the_limit_is_read_without_a_warning(recwarn):
    picture = Reader().header(io.BytesIO(claimed(10_000, 9_000)), "a.png")
    assert (picture.size, list(recwarn)) == ((10_000, 9_000), [])


def test_what_is_no_file_is_told_at_once(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    told = {
        str(tmp_path / "empty.png"): "empty.png is no whole PNG",
        str(tmp_path / "folder.png"): "folder.png is a folder: name a picture in it",
        str(tmp_path / "gone.png"): "there is no file .*gone.png",
        str(tmp_path / "empty.png" / "a.png"): "a part of the path is no folder",
        "a\0b.png": r"'a\\x00b.png' cannot be opened \(.*null",
        f"{tmp_path}/{'long' * 500}.png": "the name is too long: choose a shorter one",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        told |= {str(tmp_path / "pipe.png"): "is a pipe or a device", "/dev/zero": "/dev/zero is a pipe or a device"}
    for path, message in told.items():
        with pytest.raises(PictureError, match=message) as caught:
            read_picture(path)
        assert len(str(caught.value)) < 300 + len(str(tmp_path))


# ---- runs


def test_a_faint_grey_of_16_bits_masks_nothing_and_a_strong_one_all(tmp_path):
    """25 % grey once was "draw all of it anew"."""
    from trainer.models.flux1.encode_image import latent_mask
    from trainer.pictures.convert import fitted

    for share, masked in ((0.25, False), (0.75, True)):
        path = written(tmp_path, "mask.png", Image.fromarray(np.full((16, 16), share * 65535, np.uint16)))
        written(tmp_path, "init.png", Image.new("RGB", (16, 16)))
        _, grey = read_pictures([str(tmp_path / "init.png")], path)
        mask = fitted(grey, (16, 16))[0]
        if masked:
            assert latent_mask(mask).all()
        else:
            with pytest.raises(PictureError, match="the mask covers no square"):
                latent_mask(mask)


def test_a_picture_of_8_bits_has_the_digest_that_it_always_had(tmp_path):
    """SHA-256 over mode, size and pixels: runs that began before go on."""
    import hashlib

    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    path = written(tmp_path, "a.png", Image.fromarray(pixels))
    expected = hashlib.sha256(b"RGB(6, 4)" + pixels.tobytes()).hexdigest()
    assert digest([read_picture(path)]) == expected
    rgba = Image.fromarray(pixels).convert("RGBA")  # opaque
    assert digest([read_picture(written(tmp_path, "b.png", rgba))]) == expected


def test_a_config_names_the_picture_that_it_cannot_use(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="DDS")
    with pytest.raises(ConfigError, match=r"init: .*a.png is no whole PNG"):
        read_init({"image": "a.png"}, tmp_path)
