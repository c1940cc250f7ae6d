"""What a file of weights holds, by its header alone; without torch, as settings are checked before it is loaded."""

from pathlib import Path

from .safe_file import read_header

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
