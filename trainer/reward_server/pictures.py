"""Bytes that came from anywhere become pictures. What they claim to be is looked at before anything is decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..errors import Refused
from ..picture_files import PictureError, Reader, TooLarge

IMAGE_TYPES = {"image/png": "PNG", "image/webp": "WEBP"}
SAFETENSORS = "application/x-safetensors"
MODES = ("RGB", "L")
ORIENTATION, ON_ITS_SIDE = 0x0112, range(5, 9)  # of EXIF


@dataclass(frozen=True)
class File:
    """One `images` part of a request."""

    content_type: str
    data: bytes


@dataclass(frozen=True)
class Limits:
    images: int  # of a request
    pixels: int  # of a picture


def check(files: list[File], prompts: list[str], limits: Limits) -> list[tuple[int, int]]:
    """Width and height of each picture file, upright. Nothing is decoded.

    Raises:
        Refused: 400 for what is no such picture, 413 for what is beyond the limits, 415 for another type.
    """
    if not len(files) == len(prompts) > 0:
        raise Refused(400, f"{len(files)} images and {len(prompts)} prompts: each image needs its own prompt")
    if len(files) > limits.images:
        raise too_many(len(files), limits)
    return [_size(_open(file, f"images[{i}]", limits), f"images[{i}]") for i, file in enumerate(files)]


def decode(file: File, where: str, limits: Limits, out: Tensor) -> None:
    """A checked file's picture into `out`, [3, H, W] float32.

    Raises:
        Refused: as `check`, for what only shows now.
    """
    picture = _picture(file, where, limits)
    if picture.shape != out.shape:  # an EXIF behind the pixels
        raise Refused(400, f"{where} is turned by its EXIF: send it upright")
    out.copy_(picture).div_(255)


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


def _size(image: Image.Image, where: str) -> tuple[int, int]:
    width, height = image.size
    if "exif" not in image.info:  # Pillow would look for one behind the pixels, and decode them
        return width, height
    try:
        turned = image.getexif().get(ORIENTATION) in ON_ITS_SIDE
    except Exception as error:  # whatever the reader stumbles upon is the file's fault
        raise Refused(400, f"{where} has an EXIF that is none ({type(error).__name__})") from error
    return (height, width) if turned else (width, height)


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


def too_many(count: int, limits: Limits) -> Refused:
    return Refused(413, f"{count} images: at most {limits.images} in a request")
