"""Files of weights, opened: what is in them by name, without the values."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .comfy_layers import quantised, texts_of
from .gguf_file import gguf_file
from .nf4_file import unpacked
from .safe_tensor import SafeTensor, listed
from .source import GGUF
from .stored import Stored


def safetensors_files(paths: Iterable[Path]) -> dict[str, Stored]:
    """What is in these files, of which only the headers are read.

    Raises:
        ModelError: one is not a safetensors file, or not all of it is there, or bitsandbytes is needed to read it, or
            the parts of a quantised layer do not fit each other.
    """
    tensors: dict[str, SafeTensor] = {}
    texts: dict[str, Any] = {}
    for path in paths:
        listing = listed(path)
        tensors |= listing.tensors
        texts |= texts_of(path, listing.metadata)
    return quantised(unpacked(tensors), texts)


def open_file(path: Path) -> Mapping[str, Stored]:
    """What is in a safetensors or GGUF file.

    Raises:
        ModelError: see `safetensors_files` and `gguf_file`.
    """
    return gguf_file(path) if path.suffix == GGUF else safetensors_files([path])
