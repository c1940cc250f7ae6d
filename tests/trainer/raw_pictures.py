"""Files of pictures: what Pillow writes, what it does not, and a mask read back."""

import struct
import zlib

import numpy as np
from PIL import Image
from server_requests import chunk

from trainer.picture_files import read_pictures


def written(folder, name: str, picture: Image.Image, **options: object) -> str:
    picture.save(folder / name, **options)
    return str(folder / name)


def raw_png(width: int, depth: int, colour: int, row: bytes, *extra: bytes) -> bytes:
    """A PNG of one row; `colour` 0 is grey, 2 is RGB, 4 is grey with alpha."""
    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def read_mask(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        size = picture.size
    blank = f"{path}.blank.png"
    Image.new("RGB", size).save(blank)
    return np.asarray(read_pictures([blank], path)[1])


def of_bytes(folder, data: bytes) -> str:
    (folder / "raw.png").write_bytes(data)
    return str(folder / "raw.png")


def raw_tiff(folder, width: int, data: bytes, **tags: object) -> str:
    """A TIFF of one row of grey; `bits` of a sample, `samples` of a pixel, `kind` of numbers, `extra` sample."""
    bits, samples = tags.get("bits", 8), tags.get("samples", 1)
    entries = [(256, 1, width), (257, 1, 1), (258, samples, bits if samples == 1 else bits + (bits << 16)), (259, 1, 1)]
    entries += [(262, 1, 1), (273, 1, 200), (277, 1, samples), (278, 1, 1), (279, 1, len(data))]
    entries += [(338, 1, tags["extra"])] if "extra" in tags else []
    entries += [(339, 1, tags["kind"])] if "kind" in tags else []
    packed = b"".join(struct.pack("<HHII", tag, 3, count, value) for tag, count, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    (folder / "raw.tif").write_bytes(head.ljust(200, b"\0") + data)
    return str(folder / "raw.tif")
