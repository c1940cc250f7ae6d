"""A request's pictures as they came: what they are is known at once, and each is decoded when its turn comes."""

import json
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import Refused, brief
from ..rewards.base import check_images
from ..rewards.errors import RewardError
from .pictures import SAFETENSORS, File, Limits, check, decode, too_many

TENSOR = "images"  # its name in the safetensors file
HEADER_BYTES = 4096  # of the safetensors file; one tensor's takes about a hundred
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
OTHER_DTYPES = {"U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "I64": torch.int64, "BOOL": torch.bool}


class Pictures(Protocol):
    """N pictures."""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """N of width, height."""
        ...

    def __len__(self) -> int: ...

    def read(self, i: int, out: Tensor) -> None:
        """Picture i into `out`, [3, H, W] float32. Raises Refused if it is broken, or dropped."""
        ...

    def drop(self) -> None:
        """Let the bytes go."""
        ...


class PictureFiles:
    """PNG and WebP files."""

    def __init__(self, files: list[File], sizes: list[tuple[int, int]], limits: Limits):
        self.files, self.sizes, self.limits = files, sizes, limits

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, i: int, out: Tensor) -> None:
        file = self.files[i] if i < len(self.files) else None
        if file is None:
            raise _gone()
        decode(file, f"images[{i}]", self.limits, out)

    def drop(self) -> None:
        self.files = []


@dataclass
class TensorFile:
    """A tensor [N, 3, H, W], whose bytes are the last of a safetensors file."""

    data: bytes
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(self.shape[3], self.shape[2])] * len(self)

    def read(self, i: int, out: Tensor) -> None:
        data, length = self.data, out.numel() * self.dtype.itemsize
        if not data:
            raise _gone()
        start = self.begin + i * length
        pixels = torch.frombuffer(bytearray(memoryview(data)[start : start + length]), dtype=self.dtype)
        try:
            check_images(out.copy_(pixels.view(out.shape))[None], [""])
        except RewardError as error:
            raise Refused(400, f"images[{i}]: {error}") from None

    def drop(self) -> None:
        self.data = b""


def stored(files: list[File], prompts: list[str], limits: Limits) -> Pictures:
    """The pictures of a request. Nothing is decoded.

    Raises:
        Refused: 400 for what are no such pictures, 413 for what is beyond the limits, 415 for another type.
    """
    if SAFETENSORS not in [f.content_type for f in files]:
        return PictureFiles(files, check(files, prompts, limits), limits)
    if len(files) > 1:
        raise Refused(400, f"a safetensors file holds all pictures, got {len(files)} files")
    file = tensor_file(files[0].data)
    try:
        check_images(torch.empty(file.shape, dtype=file.dtype, device="meta"), prompts)
    except RewardError as error:
        raise Refused(400, str(error)) from None
    if len(file) > limits.images:
        raise too_many(len(file), limits)
    width, height = file.sizes[0]
    if width * height > limits.pixels:
        raise Refused(413, f"images are {width} x {height}: at most {limits.pixels} pixels")
    return file


def tensor_file(data: bytes) -> TensorFile:
    """A safetensors file's one tensor, by its header. Raises Refused."""
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_BYTES:
        raise Refused(400, "the safetensors file is broken, or holds more than one tensor")
    try:
        header = json.loads(data[8 : 8 + length])
        names = [name for name in header if name != "__metadata__"]
        if names != [TENSOR]:
            raise Refused(400, f"the safetensors file holds {brief(names)}: must hold one tensor, {TENSOR!r}")
        outline = header[TENSOR]
        dtype, shape = {**DTYPES, **OTHER_DTYPES}[outline["dtype"]], tuple(outline["shape"])
        whole = all(type(n) is int and 0 <= n < 2**31 for n in shape) and len(shape) <= 8
        size = math.prod(shape) * dtype.itemsize if whole else -1
        if outline["data_offsets"] != [0, size] or len(data) != 8 + length + size:
            raise ValueError("its header and its size differ")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(400, f"the safetensors file does not load ({brief(str(error))})") from error
    return TensorFile(data, dtype, shape, 8 + length)


def _gone() -> Refused:
    return Refused(400, "the client is gone")
