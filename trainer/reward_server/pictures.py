"""Bytes that came from anywhere become pictures. What they claim to be is looked at before anything is decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..errors import Refused
from ..picture_files import PictureError, Reader, TooLarge
from ..rewards.base import check_images
from ..rewards.errors import RewardError

IMAGE_TYPES = {"image/png": "PNG", "image/webp": "WEBP"}
SAFETENSORS = "application/x-safetensors"
TENSOR = "images"  # its name in the safetensors file
HEADER_BYTES = 4096  # of the safetensors file; one tensor's takes about a hundred
MODES = ("RGB", "L")


@dataclass(frozen=True)
class File:
    """One `images` part of a request."""

    content_type: str
    data: bytes


@dataclass(frozen=True)
class Limits:
    images: int  # of a request
    pixels: int  # of a picture


def check(files: list[File], prompts: list[str], limits: Limits) -> int:
    """The bytes that `decode` will allocate. Nothing is decoded.

    Raises:
        Refused: 400 for what is no such picture, 413 for what is beyond the limits, 415 for another type.
    """
    if SAFETENSORS in [f.content_type for f in files]:
        if len(files) > 1:
            raise Refused(400, f"a safetensors file holds all pictures, got {len(files)} files")
        return len(files[0].data)
    if not len(files) == len(prompts) > 0:
        raise Refused(400, f"{len(files)} images and {len(prompts)} prompts: each image needs its own prompt")
    if len(files) > limits.images:
        raise _too_many(len(files), limits)
    sizes = [_open(file, f"images[{i}]", limits).size for i, file in enumerate(files)]
    return sum(3 * width * height for width, height in sizes)


def decode(files: list[File], prompts: list[str], limits: Limits) -> list[Tensor]:
    """N pictures [3, H, W] of checked files: uint8 of PNG and WebP, float of safetensors; see `as_float`.

    Raises:
        Refused: as `check`, for what only shows now.
    """
    if files[0].content_type == SAFETENSORS:
        return list(_tensor(files[0].data, prompts, limits))
    return [_picture(file, f"images[{i}]", limits) for i, file in enumerate(files)]


def as_float(pictures: list[Tensor]) -> Tensor:
    """Pictures of one size -> [N, 3, H, W] float32 in [0, 1]."""
    return torch.stack([p.float() / 255 if p.dtype == torch.uint8 else p.float() for p in pictures])


def _open(file: File, where: str, limits: Limits) -> Image.Image:
    """The header, read and checked; the pixels follow with `load`."""
    if file.content_type not in IMAGE_TYPES:
        raise Refused(415, f"{where} is {file.content_type!r}: must be {', '.join(IMAGE_TYPES)} or {SAFETENSORS}")
    with _refusing():
        image = _reader(file, limits).header(io.BytesIO(file.data), where)
    if image.mode not in MODES or image.has_transparency_data:
        raise Refused(400, f"{where} is {image.mode}: must be 8-bit RGB or greyscale without transparency")
    if getattr(image, "is_animated", False):
        raise Refused(400, f"{where} is an animation: must be one picture")
    return image


def _picture(file: File, where: str, limits: Limits) -> Tensor:
    image = _open(file, where, limits)
    with _refusing():
        image = _reader(file, limits).rgb(image, where)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1)


def _reader(file: File, limits: Limits) -> Reader:
    return Reader((IMAGE_TYPES[file.content_type],), limits.pixels)


@contextmanager
def _refusing() -> Iterator[None]:
    """What the reader raises, as an answer."""
    try:
        yield
    except TooLarge as error:
        raise Refused(413, str(error)) from None
    except PictureError as error:
        raise Refused(400, str(error)) from error


def _tensor(data: bytes, prompts: list[str], limits: Limits) -> Tensor:
    """[N, 3, H, W] of a safetensors file."""
    if int.from_bytes(data[:8], "little") > HEADER_BYTES:
        raise Refused(400, "the safetensors file is broken, or holds more than one tensor")
    try:
        tensors = load(data)
    except (SafetensorError, AssertionError, KeyError, RuntimeError, ValueError) as error:
        raise Refused(400, f"the safetensors file does not load ({_one_line(error)})") from error
    if list(tensors) != [TENSOR]:
        raise Refused(400, f"the safetensors file holds {list(tensors)}: must hold one tensor, {TENSOR!r}")
    images = tensors[TENSOR]
    try:
        check_images(images, prompts)
    except RewardError as error:
        raise Refused(400, str(error)) from None
    count, _, height, width = images.shape
    if count > limits.images:
        raise _too_many(count, limits)
    if height * width > limits.pixels:
        raise Refused(413, f"images are {width} x {height}: at most {limits.pixels} pixels")
    return images


def _too_many(count: int, limits: Limits) -> Refused:
    return Refused(413, f"{count} images: at most {limits.images} in a request")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
