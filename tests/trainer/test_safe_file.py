"""Safetensors files are read by offset, as the library would read them, and nothing of a file is mapped."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_safetensors import library_accepts, with_header
from safetensors.torch import load_file, save, save_file

from trainer.models.files.headers import tensor_names
from trainer.models.files.opened import safetensors_files
from trainer.models.files.safe_file import TORCH, DamagedFile, read_file, read_header, read_values
from trainer.models.files.source import ModelError

DTYPES = [getattr(torch, name) for name in TORCH.values() if name != "float8_e8m0fnu"]  # which the library leaves out
ROWS = [slice(0, 2), slice(1, 2), slice(3, 5), slice(4, 4)]


def random_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    count = int(np.prod(shape)) * dtype.itemsize
    values = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8)
    return values.view(dtype).reshape(shape)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To the last bit, NaNs included."""
    alike = (a.dtype, a.shape) == (b.dtype, b.shape)
    return alike and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A tensor of each kind, with rows and without, with and without numbers."""
    torch.manual_seed(0)
    shapes = {"matrix": (5, 3), "scalar": (), "vector": (7,), "none": (0, 4), "empty rows": (5, 0), "cube": (5, 2, 3)}
    tensors = {f"{dtype} {name}": random_bytes(dtype, s) for dtype in DTYPES for name, s in shapes.items()}
    path = tmp_path_factory.mktemp("every") / "every kind.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "said": "grüße"})
    return path


def test_every_kind_of_tensor_is_what_the_library_reads(file):
    expected = load_file(file)
    found, metadata = read_file(file)
    assert len(expected) == 6 * 18
    assert found.keys() == expected.keys() == set(tensor_names(file))
    assert [name for name in expected if not same(found[name], expected[name])] == []
    assert metadata == {"format": "pt", "said": "grüße"}


def test_rows_are_those_of_the_whole_tensor_in_their_order(file):
    expected = load_file(file)
    for name, stored in safetensors_files([file]).items():
        assert same(stored.read(), expected[name]), name
        if stored.shape[:1] == (5,):
            assert same(stored.read(ROWS), torch.cat([expected[name][r] for r in ROWS])), name


class Slow:
    """A file of which a read gives three bytes at most, as one of 4 GiB gives two."""

    def __init__(self, path: Path):
        self.file = path.open("rb", buffering=0)
        self.seek, self.fileno = self.file.seek, self.file.fileno

    def readinto(self, view: memoryview) -> int:
        return self.file.readinto(view[:3])


def test_a_read_that_gives_less_than_was_asked_for_is_gone_on_with(file):
    expected, slow = load_file(file), Slow(file)
    entries = read_header(slow).entries
    assert all(same(read_values(slow, entries[name]), tensor) for name, tensor in expected.items())
    slow.file.close()


def test_each_tensor_has_a_memory_of_its_own_and_of_its_size(file):
    tensors, _ = read_file(file)
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors.values())
    some = safetensors_files([file])["torch.float32 cube"].read([slice(1, 3)])
    assert some.untyped_storage().nbytes() == some.nbytes == 2 * 6 * 4


# ---- files that are not whole


def accepted(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            read_header(file)
            return True
    except DamagedFile:
        return False


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
FAULTS = {
    "nothing": b"",
    "no header": b"\x00" * 8,
    "half a header": with_header({"a": ENTRY}, b"")[:30],
    "a web page": b"<!doctype html><html></html>",
    "no JSON": (4).to_bytes(8, "little") + b"abcd",
    "deep JSON": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "no UTF-8": (4).to_bytes(8, "little") + b'{"\xff"',
    "a list": with_header([1], b""),
    "an entry that is none": with_header({"a": 1}, b""),
    "no offsets": with_header({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8),
    "a negative size": with_header({"a": ENTRY | {"shape": [-2, -2]}}, b"\0" * 16),
    "a size with a point": with_header({"a": ENTRY | {"shape": [2, 2.0]}}, b"\0" * 16),
    "backwards": with_header({"a": ENTRY | {"data_offsets": [16, 0]}}, b"\0" * 16),
    "another shape": with_header({"a": ENTRY | {"shape": [2, 3]}}, b"\0" * 16),
    "values missing": with_header({"a": ENTRY}, b"\0" * 15),
    "values too many": with_header({"a": ENTRY}, b"\0" * 17),
    "a gap": with_header({"a": ENTRY, "b": ENTRY | {"data_offsets": [20, 36]}}, b"\0" * 36),
    "one over the other": with_header({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 24]}}, b"\0" * 24),
    "metadata of another kind": with_header({"__metadata__": [1], "a": ENTRY}, b"\0" * 16),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_refused_as_by_the_library_and_told_in_one_line(fault, tmp_path):
    path = tmp_path / "flux.safetensors"
    path.write_bytes(FAULTS[fault])
    assert not library_accepts(path)
    with pytest.raises(
        ModelError, match=r"flux.safetensors is not a whole safetensors file \(.+\): download"
    ) as caught:
        safetensors_files([path])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_headers_are_accepted_if_and_only_if_the_library_accepts_them(tmp_path_factory, data):
    """Up to three tensors in any order, at places that fit or are a little off."""
    kinds, header, end = {"F32": 4, "BF16": 2, "U8": 1, "BOOL": 1, "I64": 8}, {}, 0
    off = st.sampled_from([0] * 12 + [-4, -1, 1, 4])
    for name in data.draw(st.permutations("abc"))[: data.draw(st.integers(0, 3))]:
        kind, shape = data.draw(st.sampled_from(sorted(kinds))), data.draw(st.lists(st.integers(0, 3), max_size=3))
        start = end + data.draw(off)
        end = start + int(np.prod(shape)) * kinds[kind] + data.draw(off)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    shuffled = dict(data.draw(st.permutations(list(header.items()))))
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(with_header(shuffled, b"\1" * max(0, end + data.draw(off))))
    assert accepted(path) == library_accepts(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = save({"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int8)})
    path = tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not accepted(path), length
    path.write_bytes(whole)
    assert accepted(path)


def test_numbers_of_a_kind_that_torch_lacks_are_listed_and_not_read(tmp_path):
    path = tmp_path / "new.safetensors"
    path.write_bytes(with_header({"a": {"dtype": "F6", "shape": [4], "data_offsets": [0, 3]}}, b"abc"))
    stored = safetensors_files([path])["a"]
    assert (stored.dtype, stored.shape) == ("F6", (4,))
    with pytest.raises(ModelError, match=r"new.safetensors: a cannot be read \(its numbers are F6"):
        stored.read()


def rewritten(path: Path) -> None:
    """Of the same size and the same names, a moment later: other values."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


CHANGES = {
    "removed": Path.unlink,
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "written anew": rewritten,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_after_its_header_was_read_is_told_by_name(change, tmp_path):
    path = tmp_path / "flux.safetensors"
    save_file({"a": torch.ones(4)}, path)
    stored = safetensors_files([path])["a"]
    CHANGES[change](path)
    with pytest.raises(ModelError, match=r"flux.safetensors: a cannot be read \("):
        stored.read()
