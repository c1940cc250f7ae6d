"""Tensors of a file, whatever kind of file it is. Nothing in it is run."""

import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import brief
from ..models.files.safe_file import DamagedFile, read_file
from .errors import RewardError

PYTORCH = (".pt", ".pth", ".bin", ".ckpt")
LONGEST = 2**24  # bytes of a checkpoint's pickle: names and shapes
# what a checkpoint of tensors calls for, beside storages and dtypes; torch allows a bytearray of any size too
CALLED = (
    "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter", "torch.nn.parameter Parameter", "torch Size", "torch device",
    "collections OrderedDict", "collections Counter", "_codecs encode", "builtins set", "__builtin__ set",
)  # fmt: skip
# what comes of tensors that are not those of the model that a file should hold
MISFITS = (
    KeyError, ValueError, RuntimeError, IndexError, TypeError, AttributeError, ArithmeticError, AssertionError,
)  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a PyTorch checkpoint, in the file's dtype and in memory of their own.

    Of a checkpoint with more in it (`{"state_dict": ..., "epoch": ...}`) the state dict is taken; the "module." that
    distributed training puts before every name is dropped.

    Raises:
        RewardError: not such a file, cut short, or one that would run code when it is loaded.
    """
    try:
        tensors = _pytorch(path) if path.suffix in PYTORCH else read_file(path)[0]
    except (OSError, DamagedFile) as error:
        raise _damaged(path, error) from error
    if not tensors:
        raise RewardError(f"{path} holds no tensors: it is no file of weights")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _damaged(path: Path, error: Exception) -> RewardError:
    reason = brief(" ".join(str(error).split()))[1:-1] or type(error).__name__
    return RewardError(f"{path} is damaged or no file of weights ({reason}): download it again")


def _pytorch(path: Path) -> dict[str, Tensor]:
    try:
        called = [name for name in _called(path) if not _is_harmless(name)]
    except Exception as error:  # zipfile and pickletools raise whatever comes of a damaged file
        raise _damaged(path, error) from error
    if called:
        what = brief(called[0])[1:-1]
        raise RewardError(
            f"{path} holds more than tensors, which is not loaded: use its safetensors file (it calls for {what})"
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # so does torch's own reader
        raise _damaged(path, error) from error
    if isinstance(loaded, Mapping):
        loaded = loaded.get("state_dict", loaded)
    found = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    for name, tensor in found.items():
        if not isinstance(name, str) or tensor.is_sparse or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise RewardError(f"{path}: {brief(name)} is larger than its values or has no name: download it again")
    return found


def _is_harmless(name: str) -> bool:
    module, _, what = name.partition(" ")
    of_torch = module == "torch" and (what.endswith("Storage") or isinstance(getattr(torch, what, None), torch.dtype))
    return of_torch or name in CALLED


def _called(path: Path) -> Iterator[str]:
    """The classes and functions that a checkpoint's pickle calls for, "module name"; nothing is unpickled.

    Raises:
        whatever comes of a damaged file.
    """
    with zipfile.ZipFile(path) as archive:  # a download that broke off has no directory at its end
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise DamagedFile("it is compressed, as torch's are not")
        if sum(e.file_size for e in entries) > path.stat().st_size:
            raise DamagedFile("its parts are larger than the file")
        (pickled,) = [e for e in entries if e.filename.endswith("data.pkl")]
        if pickled.file_size > LONGEST:
            raise DamagedFile(f"its list of tensors has {pickled.file_size} bytes")
        data = archive.read(pickled)
    texts: list[str] = []
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "GLOBAL":
            yield str(argument)
        elif operation.name == "STACK_GLOBAL":
            yield " ".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
