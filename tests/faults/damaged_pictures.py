"""Whole pictures of every sort, and ways to damage them."""

import io
import random
import struct
import zlib

import numpy as np
from PIL import Image

from trainer.picture_files import PIXELS

EDGE = 24  # pixels
FORBIDDEN = ("DDS", "JPEG2000", "PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "ICNS", "MSP", "XBM")
LARGE = (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def samples() -> list[bytes]:
    """Whole files of every format that is read, in many modes."""
    noise = np.random.default_rng(0).integers(0, 256, (EDGE, EDGE, 4), np.uint8)
    rgba, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    rgb, grey, deep = rgba.convert("RGB"), rgba.convert("L"), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    palette = rgb.quantize(16)
    pictures = {"RGB": rgb, "RGBA": rgba, "L": grey, "LA": rgba.convert("LA"), "P": palette, "1": grey.convert("1")}
    pictures |= {"I;16": deep, "CMYK": rgb.convert("CMYK"), "LAB": rgb.convert("LAB")}
    pictures |= {"F": Image.fromarray(noise[..., 0].astype(np.float32) / 255)}
    wanted = [("PNG", mode, {"exif": exif}) for mode in ("RGB", "RGBA", "L", "LA", "1", "I;16")]
    wanted += [("PNG", "P", {"transparency": bytes(range(0, 256, 16))}), ("PNG", "RGB", {"transparency": (1, 2, 3)})]
    wanted += [("PNG", "RGB", {"icc_profile": bytes(200)}), ("PNG", "RGB", {"save_all": True, "append_images": [rgba]})]
    wanted += [("JPEG", mode, {"exif": exif}) for mode in ("RGB", "L", "CMYK")] + [("JPEG", "RGB", {"progressive": 1})]
    wanted += [("WEBP", "RGB", {"exif": exif}), ("WEBP", "RGBA", {"lossless": True})]
    wanted += [("WEBP", "RGB", {"save_all": True, "append_images": [rgba]})]
    wanted += [("BMP", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "1")]
    wanted += [("GIF", "P", {"transparency": 3}), ("GIF", "P", {"save_all": True, "append_images": [grey]})]
    wanted += [
        ("TIFF", mode, {"exif": exif}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "F", "LAB")
    ]
    methods = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    wanted += [("TIFF", "RGB", {"compression": method}) for method in methods] + [
        ("TIFF", "1", {"compression": "group4"})
    ]
    return [saved(pictures[mode], kind, **options) for kind, mode, options in wanted]


def forbidden() -> list[bytes]:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    modes = {"MSP": "1", "XBM": "1"}
    files = [saved(rgb.convert(modes.get(kind, "RGB")), kind) for kind in FORBIDDEN]
    hostile = [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(a.txt) run\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ]
    photoshop = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(4096)
    fli = struct.pack("<IHHHHHHI", 128, 0xAF12, 1, 64, 64, 8, 3, 10) + bytes(200)
    return [*files, *hostile, photoshop, fli, b"\0\0\0\x1cftypavif" + bytes(300), b"\0\0\0\x1cftypheic" + bytes(300)]


def largest() -> list[bytes]:
    return [saved(Image.new("RGBA", (PIXELS // 9000, 9000)), "PNG")]


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def flipped(generator: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    near = generator.choice([64, 512, len(data)])  # headers more often than pixels
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(min(near, len(data)))] = generator.randrange(256)
    return bytes(changed)


def repaired(generator: random.Random, data: bytes) -> bytes:
    return checked(flipped(generator, data), data)


def claiming(generator: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        size = generator.choice((2, 4))
        at = generator.randrange(min(len(data), 200) - size)
        value = generator.choice(LARGE) % 256**size
        changed[at : at + size] = value.to_bytes(size, generator.choice(("little", "big")))
    return checked(bytes(changed), data)


def checked(changed: bytes, data: bytes) -> bytes:
    """A changed PNG with chunks as long as in `data`, and the checksums of what is in them now; others as they are."""
    if not data.startswith(b"\x89PNG"):
        return changed
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = changed[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out


def cut(generator: random.Random, data: bytes) -> bytes:
    return data[: generator.randrange(len(data))]


def moved(generator: random.Random, data: bytes) -> bytes:
    first, second = generator.randrange(len(data)), generator.randrange(len(data))
    return data[:first] + data[second:]


def perhaps_flipped(generator: random.Random, data: bytes) -> bytes:
    return data if generator.random() < 0.3 else flipped(generator, data)


CHANGES = {
    "flipped": flipped,
    "repaired": repaired,
    "claiming": claiming,
    "cut": cut,
    "moved": moved,
    "forbidden": perhaps_flipped,
    "largest": lambda _, data: data,
}
WHOLE = {"any": samples, "forbidden": forbidden, "largest": largest}
