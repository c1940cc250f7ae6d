"""What a file of weights holds, by its header alone; without torch, as settings are checked before it is loaded."""

import json
from pathlib import Path
from typing import Any

from ...errors import brief
from .safe_file import read_header

CONFIG = 2**20  # bytes of a config.json, at most
MOST_LAYERS = 500  # of a model, or blocks, or heads
WIDEST = 2**20  # of a layer, a vocabulary, a list of channels
MOST = {  # how the names of settings end that may be so large
    MOST_LAYERS: ("layers", "layers_per_block", "blocks", "depth"),
    WIDEST: ("_size", "_dim", "channels"),
}

STARTS = {
    b"<": "it is a web page, such as a site's request to log in",
    b"version https://git-lfs": "it is a Git LFS pointer, without the weights",
    b"pk\x03\x04": "it is a PyTorch checkpoint",
    b"gguf": "it is a GGUF file, whose name must end in .gguf",
}


def tensor_names(path: Path) -> list[str]:
    """Names of a safetensors file's tensors.

    Raises:
        OSError, DamagedFile: it is not one, or not all of it is there.
    """
    with path.open("rb") as file:
        return list(read_header(file).entries)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a safetensors file, by its name.

    Raises:
        OSError, DamagedFile: see `tensor_names`.
    """
    with path.open("rb") as file:
        return {name: entry.shape for name, entry in read_header(file).entries.items()}


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself.

    Raises:
        OSError, DamagedFile: see `tensor_names`.
    """
    with path.open("rb") as file:
        return dict(read_header(file).metadata)


def damage(path: Path, error: Exception) -> str:
    """Why a file cannot be read as safetensors, in one line with the remedy."""
    return f"{path} is not a whole safetensors file ({_disguise(path) or error}): download it again"


def _disguise(path: Path) -> str:
    """What the file is instead, if its first bytes say so."""
    if not path.is_file():
        return "there is no such file"
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if not head:
        return "it is empty"
    return next((what for start, what in STARTS.items() if head.startswith(start)), "")


def read_config(path: Path) -> dict[str, Any]:
    """A model's config.json, of which no number asks for more than models have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or asks for a model that would be built for hours.
    """
    with path.open("rb") as file:
        text = file.read(CONFIG + 1)
    if len(text) > CONFIG:
        raise ValueError(f"{path.name} has more than {CONFIG} bytes")
    try:
        config = json.loads(text.decode("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{path.name} is no table but {brief(config)}")
        _check_sizes(path.name, config)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    return config


def _check_sizes(where: str, config: dict[str, Any]) -> None:
    for name, value in config.items():
        if isinstance(value, dict):
            _check_sizes(where, value)
        most = next((most for most, ends in MOST.items() if name.endswith(ends)), None)
        numbers = value if isinstance(value, list) else [value]
        if most and any(isinstance(one, int) and abs(one) > most for one in numbers):
            raise ValueError(f"{where} has {brief(name)[1:-1]} = {brief(value)}: at most {most}")
        if isinstance(value, list) and name.endswith(("channels", "types")) and len(value) > MOST_LAYERS:
            raise ValueError(f"{where} has {len(value)} {brief(name)[1:-1]}")
