"""The one reader of pictures, from files and from bytes that came from anywhere.

Without torch, as a config's pictures are checked before it is imported. What comes out has 8 bits a channel and stands
upright, as its EXIF says: of an animation the first picture, of more bits all values from black to white, of ink and
palettes what they look like. A colour profile is not applied.
"""

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError, brief
from .faults import in_words

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
PIXELS = 90_000_000  # of a picture: 9,000 x 10,000; with transparency, reading it takes 2.5 GB
TOLERANCE = 0.01  # below black and above white, as resizing leaves it in floating point
LEVELS = 16  # of 255, by which colours may differ and still be one, as lossy files leave them
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
WHITE_IS_ZERO, SIGNED = 0, 2  # values of the last two


class PictureError(UserError):
    """A picture or mask that cannot be used: names it and the remedy, in one line."""


class TooLarge(PictureError):
    """A picture of more pixels than are read."""


@dataclass(frozen=True)
class Reader:
    """Reads pictures of some formats, in Pillow's names, up to some pixels; called `name` in what it raises.

    Raises:
        PictureError: of another format, or damaged.
        TooLarge: of more pixels, by what its header claims, before anything is decoded.
    """

    formats: tuple[str, ...] = FORMATS
    pixels: int = PIXELS

    def header(self, source: BinaryIO, name: str) -> Image.Image:
        """What is there, without its pixels."""
        with self._told(name):
            picture = Image.open(source, formats=self.formats)
        width, height = picture.size
        if width * height > self.pixels:
            raise TooLarge(f"{name} is {width} x {height}: at most {self.pixels} pixels are read, make it smaller")
        return picture

    def rgb(self, picture: Image.Image, name: str) -> Image.Image:
        """In RGB; transparent parts on white."""
        with self._told(name):
            picture = _upright(picture)
            if not picture.has_transparency_data:
                return picture.convert("RGB")
            picture = _with_alpha(picture)
            white = Image.new("RGBA", picture.size, "white")
            return Image.alpha_composite(white, picture).convert("RGB")

    def mask(self, picture: Image.Image, name: str) -> Image.Image:
        """In shades of grey, white where something is masked.

        Of one with transparent parts: how opaque it is, if all that is seen of it has one colour, whichever it is; what
        is seen of it on black, if that is in shades of grey. A picture in colours with a hole in it is refused: some
        programs mask the hole, some the rest.
        """
        with self._told(name):
            picture = _upright(picture)
            if picture.mode == "LAB":  # which Pillow converts to nothing else
                picture = picture.convert("RGB")
            return _mask_of(picture, name) if picture.has_transparency_data else picture.convert("L")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Whatever a decoder stumbles upon is the file's fault, and told in a line."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")
                yield
        except PictureError:
            raise
        except (Image.DecompressionBombError, MemoryError):
            raise TooLarge(f"{name} is far too large: at most {self.pixels} pixels are read, make it smaller") from None
        except Exception as error:
            *others, last = ("WebP" if kind == "WEBP" else kind for kind in self.formats)
            kinds = f"{', '.join(others)} or {last}" if others else last
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            known = "" if isinstance(error, UnidentifiedImageError) else f" ({reason})"
            raise PictureError(f"{name} is no whole {kinds} file{known}: save it as PNG") from error


FILES = Reader()


def read_pictures(images: Sequence[str], mask: str) -> tuple[list[Image.Image], Image.Image | None]:
    """The files' pictures in RGB, and the mask in shades of grey if there is one.

    Raises:
        PictureError: a file is missing or no picture, or the mask is of another size than a picture.
    """
    pictures = [read_picture(path) for path in images]
    if not mask:
        return pictures, None
    with _opened(mask) as picture:
        grey = FILES.mask(picture, mask)
    for path, picture in zip(images, pictures, strict=True):
        if picture.size != grey.size:
            sizes = "{} x {} pixels, {} has {} x {}".format(*grey.size, path, *picture.size)
            raise PictureError(f"the mask {mask} has {sizes}: save both in one size")
    return pictures, grey


def read_picture(path: str) -> Image.Image:
    """A file's picture in RGB. Raises PictureError, as `read_pictures`."""
    with _opened(path) as picture:
        return FILES.rgb(picture, path)


def digest(pictures: Sequence[Image.Image]) -> str:
    """SHA-256 of sizes and pixels: another picture in the same file is another picture."""
    total = hashlib.sha256()
    for picture in pictures:
        total.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
    return total.hexdigest()


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """The header of a file."""
    with _regular(path) as file, FILES.header(file, path) as picture:
        yield picture


def _regular(path: str) -> BinaryIO:
    """A file, open; a pipe or a device would be waited for."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(f"{path} is a folder: name a picture in it")
        if not stat.S_ISREG(mode):
            raise PictureError(f"{path} is a pipe or a device: name a file with a picture")
        return open(path, "rb")
    except FileNotFoundError:
        raise PictureError(f"there is no file {path}") from None
    except OSError as error:
        raise PictureError(in_words(error, Path(path))) from error
    except ValueError as error:  # a path that no system has
        raise PictureError(f"{brief(path)} cannot be opened ({error})") from error


def _upright(picture: Image.Image) -> Image.Image:
    """Its pixels, turned as EXIF says, with 8 bits a channel."""
    _spread_key(picture)
    picture.load()
    picture = _narrow(picture)
    ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _spread_key(picture: Image.Image) -> None:
    """Pillow brings a PNG's pixels to 8 bits, but not the colour that is transparent among them."""
    key, tiles = picture.info.get("transparency"), getattr(picture, "tile", [])
    raw = tiles[0][3] if tiles else ""
    if isinstance(key, int) and raw in ("L;2", "L;4"):
        picture.info["transparency"] = key * {"L;2": 85, "L;4": 17}[raw]
    elif isinstance(key, tuple) and raw == "RGB;16B":
        picture.info["transparency"] = tuple(value >> 8 for value in key)


def _narrow(picture: Image.Image) -> Image.Image:
    """One channel of more than 8 bits, from black to white, as 0 to 255; any other picture as it is."""
    if picture.mode[0] not in "IF":
        return picture
    import numpy as np

    values, white = np.asarray(picture), _white(picture)
    low, high = values.min(), values.max()
    if not -TOLERANCE * white <= low <= high <= (1 + TOLERANCE) * white:
        raise ValueError(f"it has values from {low:g} to {high:g}, must be from 0 to {white:g}")
    levels = np.rint(values * np.float32(255 / white)).clip(0, 255).astype(np.uint8)
    if _tag(picture, PHOTOMETRIC, 1) == WHITE_IS_ZERO:  # which Pillow heeds up to 8 bits
        levels = 255 - levels
    narrow = Image.fromarray(levels)
    key = picture.info.get("transparency")
    if key is not None:
        narrow.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    narrow.info = {name: value for name, value in picture.info.items() if name != "transparency"}
    return narrow


def _white(picture: Image.Image) -> int:
    """The value of white in the mode I or F."""
    if picture.mode == "F":
        return 1
    bits = _tag(picture, BITS_PER_SAMPLE, 16)
    if bits > 16:  # nobody agrees on the white of 32 bits: what they hold is what 16 bits held
        return 65535
    return 2 ** (bits - (_tag(picture, SAMPLE_FORMAT, 1) == SIGNED)) - 1


def _tag(picture: Image.Image, tag: int, default: int) -> int:
    """A number in the header of a TIFF; `default` for other files."""
    value = getattr(picture, "tag_v2", {}).get(tag, default)
    return value[0] if isinstance(value, tuple) else value


def _with_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode == "La":
        picture = picture.convert("LA")
    return picture if picture.mode == "RGBA" else picture.convert("RGBA")


def _mask_of(picture: Image.Image, name: str) -> Image.Image:
    """A mask of a picture that may have transparent parts, see `Reader.mask`."""
    import numpy as np

    picture = _with_alpha(picture)
    alpha = picture.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return picture.convert("L")
    pixels = np.asarray(picture)
    seen = pixels[pixels[..., 3] >= 128, :3]
    if not len(seen) or np.ptp(seen, axis=0).max() <= LEVELS:
        return alpha
    if np.ptp(seen, axis=1).max() > LEVELS:
        raise PictureError(
            f"the mask {name} has colours and transparent parts: save it in black and white, without transparency"
        )
    return Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("L")
