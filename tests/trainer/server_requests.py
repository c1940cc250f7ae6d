"""What the tests send to a reward server."""

import struct
import zlib

import torch

PNG, WEBP, TENSORS = "image/png", "image/webp", "application/x-safetensors"


def pixels(n: int, *, size: tuple[int, int] = (64, 64), seed: int = 0) -> torch.Tensor:
    """[n, 3, H, W] uint8."""
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", *extra: bytes) -> bytes:
    """A PNG that claims a size, whatever its data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ZEROS = zlib.compress(bytes(64 * (64 * 3 + 1)))
GOOD = png(64, 64, ZEROS)
ONE = {"prompts": ["a"]}


def image(data: bytes, kind: str = PNG) -> tuple:
    return ("images", kind, data)
