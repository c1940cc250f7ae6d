"""Small pictures of a run on disk, as WebP: `tiles/<iteration>/<slot>-<candidate>.webp`, and others beside them."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..pictures.convert import to_pictures

TILES, EVALUATIONS = "tiles", "evaluations"  # folders
PICTURE = ".webp"
TILE_EDGE = 512  # pixels, the longest edge of a stored picture


def place(iteration: int) -> Path:
    """Where an iteration's pictures lie, relative to the run's folder."""
    return Path(TILES) / f"{iteration:06d}"


def write_tiles(run: Path, relative: Path, pictures: Mapping[str, Image.Image]) -> dict[str, str]:
    """Store pictures by name in `run / relative`; returns their paths by name, relative to the run's folder."""
    if pictures:
        (run / relative).mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, picture in pictures.items():
        path = relative / f"{name}{PICTURE}"
        picture.thumbnail((TILE_EDGE, TILE_EDGE))
        picture.save(run / path, "WEBP", quality=90, method=0)
        paths[name] = path.as_posix()
    return paths


def candidate_tiles(images: Tensor, group_size: int) -> dict[str, Image.Image]:
    """Pictures [P * G, 3, H, W] by '<slot>-<candidate>'."""
    named = {}
    for n, picture in enumerate(to_pictures(images)):
        slot, candidate = divmod(n, group_size)
        named[f"{slot}-{candidate}"] = picture
    return named


def base_tiles(images: Tensor) -> dict[str, Image.Image]:
    """Pictures [P, 3, H, W] by '<slot>-base'."""
    return {f"{slot}-base": picture for slot, picture in enumerate(to_pictures(images))}
