"""Files of weights, opened: what is in them by name, without the values."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from .gguf_file import gguf_file
from .nf4_file import unpacked
from .safe_tensor import listed
from .source import GGUF
from .stored import Stored


def safetensors_files(paths: Iterable[Path]) -> dict[str, Stored]:
    """What is in these files, of which only the headers are read.

    Raises:
        ModelError: one is not a safetensors file, or not all of it is there, or bitsandbytes is needed to read it.
    """
    return unpacked({tensor.name: tensor for path in paths for tensor in listed(path)})


def open_file(path: Path) -> Mapping[str, Stored]:
    """What is in a safetensors or GGUF file.

    Raises:
        ModelError: see `safetensors_files` and `gguf_file`.
    """
    return gguf_file(path) if path.suffix == GGUF else safetensors_files([path])
