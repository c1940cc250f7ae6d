"""The emoji that pictures are made of: Noto's, from the npm package `emoji-datasource-google`.

Its images are Apache-2.0, its data MIT.
"""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "emoji-datasource-google@16.0.0"


def fetch(folder: Path) -> Path:
    """Download the emoji package with npm into `folder` once; return the unpacked package."""
    package = folder / "package"
    if not package.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(
                f"npm is needed to download {PACKAGE}: install Node.js, or unpack the package to {package}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return package


def sprites(package: Path, names: Iterable[str]) -> list[Image.Image]:
    """The pictures of short names, 64 x 64 RGBA."""
    index = {entry["short_name"]: entry["image"] for entry in json.loads((package / "emoji.json").read_text("utf-8"))}
    folder = package / "img" / "google" / "64"
    return [Image.open(folder / index[name]).convert("RGBA") for name in names]


def premultiplied(image: Image.Image, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour times alpha [s, s, 3], and alpha [s, s, 1], in [0, 1]."""
    resized = image.convert("RGBa").resize((size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(resized, np.float32) / 255
    return pixels[..., :3], pixels[..., 3:]
