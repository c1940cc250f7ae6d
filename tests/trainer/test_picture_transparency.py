"""Transparent parts are on white wherever pictures are read, and a mask in the alpha is a mask."""

import struct

import numpy as np
import pytest
from PIL import Image
from raw_pictures import of_bytes, raw_png, raw_tiff, read_mask, written
from server_requests import chunk

from trainer.picture_files import PictureError, read_picture
from trainer.rewards.references import pixels_of

HALF_RED = (255, 127, 127)  # red by 128 of 255 on white: 255 - 128


def transparent(mode: str) -> Image.Image:
    """A pixel of red (or black) by half, and one of which nothing is seen."""
    if mode == "P":
        picture = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
        picture.putpalette([255, 0, 0, 0, 0, 255])
        picture.info["transparency"] = bytes([128, 0])
        return picture
    seen, unseen = {"RGBA": ((255, 0, 0, 128), (0, 0, 255, 0)), "LA": ((0, 128), (99, 0))}[mode]
    picture = Image.new(mode, (2, 1), seen)
    picture.putpixel((1, 0), unseen)
    return picture


@pytest.mark.parametrize(
    ("mode", "name"), [("RGBA", "a.png"), ("RGBA", "a.tif"), ("RGBA", "a.webp"), ("LA", "a.png"), ("P", "a.png")]
)
def test_transparent_parts_are_on_white(tmp_path, mode, name):
    options = {"lossless": True} if name == "a.webp" else {}
    path = written(tmp_path, name, transparent(mode), **options)
    expected = [(127, 127, 127) if mode == "LA" else HALF_RED, (255, 255, 255)]
    assert list(map(tuple, np.asarray(read_picture(path))[0].tolist())) == expected
    assert [tuple(p) for p in (pixels_of(path)[0].flatten(1).T * 255).round().int().tolist()] == expected


@pytest.mark.parametrize(
    ("data", "opaque"),
    [
        (raw_png(2, 4, 0, bytes([0xF3]), chunk(b"tRNS", struct.pack(">H", 3))), 255),
        (raw_png(2, 16, 0, struct.pack(">2H", 65535, 500), chunk(b"tRNS", struct.pack(">H", 500))), 255),
        (raw_png(2, 16, 0, struct.pack(">2H", 0, 500), chunk(b"tRNS", struct.pack(">H", 500))), 0),
        (raw_png(2, 16, 2, struct.pack(">6H", 0, 0, 0, 7, 8, 9), chunk(b"tRNS", struct.pack(">3H", 7, 8, 9))), None),
        (raw_png(2, 16, 2, b"\x12\x34" * 3 + b"\x56\x78" * 3, chunk(b"tRNS", b"\x56\x78" * 3)), 0x12),
        (raw_png(2, 8, 0, bytes([10, 77]), chunk(b"tRNS", struct.pack(">H", 77))), 10),
        (raw_png(2, 1, 0, bytes([0x40]), chunk(b"tRNS", struct.pack(">H", 1))), 0),
    ],
    ids=["4 bits", "16 bits, white", "16 bits, black", "16 bits, one byte", "16 bits, RGB", "8 bits", "1 bit"],
)
def test_a_transparent_colour_of_any_depth_is_unseen(tmp_path, data, opaque):
    """The second pixel has it."""
    first, second = np.asarray(read_picture(of_bytes(tmp_path, data)))[0].tolist()
    assert second == [255, 255, 255]
    if opaque is not None:  # of 16 bits a channel, Pillow reads the upper 8
        assert first == [opaque] * 3


def test_a_premultiplied_grey_is_divided_by_its_alpha(tmp_path):
    """64 of 255 at half is a grey of 128, and on white 191."""
    path = raw_tiff(tmp_path, 1, bytes([64, 128]), samples=2, extra=1)
    assert read_picture(path).getpixel((0, 0)) == pytest.approx((191,) * 3, abs=1)


# ---- masks in the alpha

ALPHA = [0, 64, 200, 255]


def with_alpha(colours: list[tuple[int, int, int]], alpha: list[int]) -> Image.Image:
    picture = Image.new("RGBA", (len(alpha), 1))
    for x, (colour, opacity) in enumerate(zip(colours, alpha, strict=True)):
        picture.putpixel((x, 0), (*colour, opacity))
    return picture


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 30, 30), (128, 128, 128)])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_a_mask_of_one_colour_is_its_opacity(tmp_path, colour, kind):
    if kind == "P":
        picture = Image.fromarray(np.arange(4, dtype=np.uint8)[None]).convert("P")
        picture.putpalette(list(colour) * 4)
        picture.info["transparency"] = bytes(ALPHA)
    else:
        picture = with_alpha([colour] * 4, ALPHA).convert(kind)
    assert read_mask(written(tmp_path, "a.png", picture)).tolist() == [ALPHA]


def test_colours_that_nobody_sees_do_not_count(tmp_path):
    picture = with_alpha([(9, 200, 60), (255,) * 3, (255,) * 3, (250, 255, 255)], [0, 200, 255, 255])
    assert read_mask(written(tmp_path, "a.png", picture)).tolist() == [[0, 200, 255, 255]]


def test_a_mask_painted_in_grey_is_what_is_seen_of_it_on_black(tmp_path):
    picture = with_alpha([(255,) * 3, (255,) * 3, (0,) * 3, (100,) * 3], [255, 0, 255, 128])
    assert read_mask(written(tmp_path, "a.png", picture)).tolist() == [[255, 0, 0, 50]]


def test_a_mask_that_is_opaque_everywhere_is_its_colours(tmp_path):
    picture = with_alpha([(255,) * 3, (0,) * 3, (100,) * 3, (255, 0, 0)], [255] * 4)
    assert read_mask(written(tmp_path, "a.png", picture)).tolist() == [[255, 0, 100, 76]]


def test_a_photograph_with_a_hole_is_no_mask(tmp_path):
    picture = with_alpha([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)], [255, 255, 255, 0])
    with pytest.raises(PictureError, match=r"mask .*a.png has colours and transparent parts: save it in black and"):
        read_mask(written(tmp_path, "a.png", picture))
