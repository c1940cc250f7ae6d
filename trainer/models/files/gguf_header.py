"""The header of a GGUF file, read in bounded time and memory, whatever its numbers say.

The `gguf` package maps the file and believes its counts: a header of 2^60 tensors is listed for ever.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ...errors import brief
from .safe_file import DamagedFile

MAGIC, VERSIONS = b"GGUF", (2, 3)
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type
UINT32, STRING, ARRAY = 4, 8, 9
MOST = 2**16  # tensors, or values beside them
LONGEST = 2**27  # bytes of a header; a language model's vocabulary takes some MB
DIMENSIONS = 4


@dataclass(frozen=True)
class GgufEntry:
    """What the header says of a tensor."""

    name: str
    shape: tuple[int, ...]  # the last dimension lies together in memory
    kind: int  # a gguf.GGMLQuantizationType
    start: int  # of its values, in bytes from the beginning of the file
    size: int  # bytes


def read_gguf_header(path: Path, blocks: Mapping[int, tuple[int, int]]) -> list[GgufEntry]:
    """The tensors of a file.

    Args:
        blocks: of each kind of numbers, how many are stored together and in how many bytes.

    Raises:
        OSError, DamagedFile: it is no GGUF file, or not all of it is there.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _Header(file, size).entries(blocks)


class _Header:
    def __init__(self, file: BufferedReader, size: int):
        self.file, self.size = file, size
        self.left = min(size, LONGEST)  # bytes that may still be read

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise DamagedFile("it ends within its header")
        self.left -= count
        return self.file.read(count)

    def number(self, form: str) -> int:
        value: int = struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]
        return value

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8")

    def count(self, what: str) -> int:
        count = self.number("Q")
        if count > MOST:
            raise DamagedFile(f"it would have {count} {what}")
        return count

    def entries(self, blocks: Mapping[int, tuple[int, int]]) -> list[GgufEntry]:
        try:
            if self.take(4) != MAGIC or self.number("I") not in VERSIONS:
                raise DamagedFile("it does not begin as one of version 2 or 3")
            tensors, values = self.count("tensors"), self.count("values beside them")
            alignment = self.alignment(values)
            told = [self.tensor() for _ in range(tensors)]
        except (struct.error, UnicodeDecodeError) as error:
            raise DamagedFile(f"its header cannot be read: {error}") from error
        first = -(-self.file.tell() // alignment) * alignment
        return _placed(told, first, self.size, blocks)

    def alignment(self, values: int) -> int:
        """Of the tensors, in bytes; the other values are passed over."""
        alignment = DEFAULT_ALIGNMENT
        for _ in range(values):
            name, kind = self.text(), self.number("I")
            if name == ALIGNMENT and kind == UINT32:
                alignment = self.number("I")
            else:
                self.pass_over(kind)
        if alignment not in [2**n for n in range(3, 21)]:
            raise DamagedFile(f"its alignment would be {alignment}")
        return alignment

    def pass_over(self, kind: int) -> None:
        if kind == STRING:
            self.take(self.number("Q"))
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner == STRING:
                for _ in range(min(count, self.left + 1)):  # each takes 8 bytes, or the header ends
                    self.take(self.number("Q"))
            elif inner in SIZES:
                self.take(count * SIZES[inner])
            else:
                raise DamagedFile(f"it has a list of values of the type {inner}")
        elif kind in SIZES:
            self.take(SIZES[kind])
        else:
            raise DamagedFile(f"it has a value of the type {kind}")

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, kind, and offset from the first tensor."""
        name, dimensions = self.text(), self.number("I")
        if dimensions > DIMENSIONS:
            raise DamagedFile(f"{brief(name)} would have {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        return name, shape, self.number("I"), self.number("Q")


def _placed(
    told: list[tuple[str, tuple[int, ...], int, int]], first: int, size: int, blocks: Mapping[int, tuple[int, int]]
) -> list[GgufEntry]:
    """Each tensor with its bytes, which lie in the file and are no other's."""
    entries, names, end = [], {name for name, *_ in told}, first
    if len(names) < len(told):
        raise DamagedFile("it has a name twice")
    for name, shape, kind, offset in sorted(told, key=lambda one: one[3]):
        if kind not in blocks:
            raise DamagedFile(f"{brief(name)} is of the kind {kind}, which is not known")
        numbers, together = blocks[kind]
        quantised = numbers > 1  # by rows
        if 0 in shape or (quantised and (len(shape) < 2 or shape[-1] % numbers)):
            raise DamagedFile(f"{brief(name)} would have the shape {brief(shape)}")
        length, start = math.prod(shape) // numbers * together, first + offset
        if start < end or start + length > size:
            raise DamagedFile(f"{brief(name)} lies at the wrong place")
        entries.append(GgufEntry(name, shape, kind, start, length))
        end = start + length
    return entries
