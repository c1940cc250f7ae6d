"""Safetensors files, read by offset into memory of their own.

Nothing of a file is ever mapped: a private mapping counts as memory that may be needed, so that 24 GB cannot be opened
on a machine of 16, and Windows neither replaces nor removes a file of which a tensor is mapped.

A file is: the length of its header (8 bytes, little-endian), the header (JSON: name -> dtype, shape, data_offsets),
and the values of all tensors without gaps (https://github.com/huggingface/safetensors#format).
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import brief

if TYPE_CHECKING:  # headers are read when settings are checked, without torch
    from torch import Tensor, nn

File = BufferedReader | FileIO

LENGTH = 8  # bytes of the header's length
LONGEST = 2**24  # bytes of a header: that of 800 tensors has 100 kB, and JSON of 16 MB can take 400 MB of memory
LARGEST = 2**60  # numbers in a tensor, sizes of 0 left out: more is no place in any memory
METADATA = "__metadata__"
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip


class DamagedFile(ValueError):
    """Not a safetensors file, not all of one, or another one than before."""


@dataclass(frozen=True)
class Entry:
    """What the header says of a tensor."""

    dtype: str  # one of TORCH, or of a kind that cannot be read
    shape: tuple[int, ...]
    start: int  # of its values, in bytes from the beginning of the file
    end: int


@dataclass(frozen=True)
class Header:
    """What is in a file, and when that was written."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    written: tuple[int, int]  # see `written`


def written(file: File) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds: other numbers are another file."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def read_header(file: File) -> Header:
    """The header of a file that is open at its beginning.

    Raises:
        DamagedFile: it is no safetensors file, or not all of it is there.
    """
    version = written(file)
    length = int.from_bytes(_bytes(file, LENGTH), "little")
    if not 2 <= length <= min(LONGEST, version[0] - LENGTH):
        raise DamagedFile(f"it has {version[0]} bytes, and its header would have {length}")
    try:
        described = json.loads(_bytes(file, length).decode("utf-8"), object_pairs_hook=_once)
        metadata = {str(key): str(value) for key, value in (described.pop(METADATA, None) or {}).items()}
        entries = {name: _entry(described[name], LENGTH + length) for name in described}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DamagedFile(f"its header cannot be read: {' '.join(str(error).split())[:120]}") from error
    _check(entries, LENGTH + length, version[0])
    return Header(entries, metadata, version)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of JSON; of two tensors with one name nobody could say which counts."""
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has {brief(twice)} twice")
    return table


def _entry(described: Mapping[str, Any], first: int) -> Entry:
    (start, end), shape = described["data_offsets"], tuple(described["shape"])
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
        raise ValueError(f"shape {brief(shape)} from byte {brief(start)} to {brief(end)}")
    if len(shape) > 64 or math.prod(n or 1 for n in shape) > LARGEST:
        raise ValueError(f"shape {brief(shape)}")
    return Entry(str(described["dtype"]), shape, first + start, first + end)


def _check(entries: Mapping[str, Entry], first: int, size: int) -> None:
    """Each tensor has its bytes, one begins where another ends, and the last ends with the file."""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        needed = math.prod(entry.shape) * BYTES[entry.dtype] if entry.dtype in BYTES else entry.end - entry.start
        if entry.start != first or entry.end - entry.start != needed or needed < 0:
            raise DamagedFile(f"{brief(name)} lies at the wrong place")
        first = entry.end
    if first != size:
        raise DamagedFile(f"it has {size} bytes of {first}")


def read_values(file: File, entry: Entry, rows: Sequence[slice] = ()) -> "Tensor":
    """The values of a tensor of a file opened without a buffer: all, or these ranges of rows one after another.

    Raises:
        DamagedFile: the file ends before them, or torch has no such numbers.
    """
    import torch

    dtype = getattr(torch, TORCH.get(entry.dtype, ""), None)
    if dtype is None:
        raise DamagedFile(f"its numbers are {brief(entry.dtype)[1:-1]}, which this torch cannot read")
    ranges = [range(entry.shape[0])[r] for r in rows]
    shape = (sum(map(len, ranges)), *entry.shape[1:]) if rows else entry.shape
    values = torch.empty(shape, dtype=dtype, device="cpu")
    left = values.reshape(-1).view(torch.uint8).numpy().data
    row = math.prod(entry.shape[1:]) * dtype.itemsize  # bytes
    for start, size in [(r.start * row, len(r) * row) for r in ranges] if rows else [(0, len(left))]:
        file.seek(entry.start + start)
        _fill(file, left[:size])
        left = left[size:]
    return values


def _bytes(file: File, size: int) -> bytearray:
    found = bytearray(size)
    _fill(file, memoryview(found))
    return found


def _fill(file: File, view: memoryview) -> None:
    while len(view):
        count = file.readinto(view)  # at most 2 GiB at once
        if not count:
            raise DamagedFile("it ends too early")
        view = view[count:]


def read_file(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Every tensor of a file, and its metadata.

    Raises:
        OSError: it cannot be opened.
        DamagedFile: see `read_header` and `read_values`.
    """
    with path.open("rb", buffering=0) as file:
        header = read_header(file)
        tensors = {name: read_values(file, entry) for name, entry in header.entries.items()}
    return tensors, dict(header.metadata)


def unmap(model: "nn.Module") -> None:
    """Move the weights of a model that a library has loaded into memory of their own, one after another.

    diffusers and transformers map a file, and if precision and device fit, the file stays the weights' memory.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
