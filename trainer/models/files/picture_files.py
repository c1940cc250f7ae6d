"""Files of pictures and masks to begin from; without torch, as a config's are checked before it is imported."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from ...errors import UserError


class PictureError(UserError):
    """A picture or mask that cannot be used: names it and the remedy, in one line."""


def read_pictures(images: Sequence[str], mask: str) -> tuple[list[Image.Image], Image.Image | None]:
    """The files' pictures in RGB, and the mask in shades of grey if there is one.

    Raises:
        PictureError: a file is missing or no picture, or the mask is of another size than a picture.
    """
    pictures = [_read(path).convert("RGB") for path in images]
    if not mask:
        return pictures, None
    grey = _read(mask).convert("L")
    for path, picture in zip(images, pictures, strict=True):
        if picture.size != grey.size:
            sizes = "{} x {} pixels, {} has {} x {}".format(*grey.size, path, *picture.size)
            raise PictureError(f"the mask {mask} has {sizes}: save both in one size")
    return pictures, grey


def _read(path: str) -> Image.Image:
    if not Path(path).is_file():
        raise PictureError(f"there is no file {path}")
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path} is no picture that can be read ({error}): save it as PNG or JPEG") from error


def digest(pictures: Sequence[Image.Image]) -> str:
    """SHA-256 of sizes and pixels: another picture in the same file is another picture."""
    total = hashlib.sha256()
    for picture in pictures:
        total.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
    return total.hexdigest()
