"""Tensors of a file, whatever kind of file it is. Nothing in it is run."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from ..models.files.safe_file import DamagedFile, read_file
from .errors import RewardError

PYTORCH = (".pt", ".pth", ".bin", ".ckpt")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a PyTorch checkpoint, in the file's dtype and in memory of their own.

    Of a checkpoint with more in it (`{"state_dict": ..., "epoch": ...}`) the state dict is taken; the "module." that
    distributed training puts before every name is dropped.

    Raises:
        RewardError: not such a file, cut short, or one that would run code when it is loaded.
    """
    try:
        tensors = _pytorch(path) if path.suffix in PYTORCH else read_file(path)[0]
    except (OSError, DamagedFile, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RewardError(f"{path} is damaged or no file of weights ({reason}): download it again") from error
    except UnpicklingError as error:
        raise RewardError(f"{path} holds more than tensors, which is not loaded: use its safetensors file") from error
    if not tensors:
        raise RewardError(f"{path} holds no tensors: it is no file of weights")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _pytorch(path: Path) -> dict[str, Tensor]:
    zipfile.ZipFile(path).close()  # a download that broke off has no directory at its end
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, Mapping):
        loaded = loaded.get("state_dict", loaded)
    return {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
