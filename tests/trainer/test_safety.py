"""Room that is kept for the last checkpoint, and what machines do, in words."""

import errno
import os
import sqlite3

import pytest
from safetensors import SafetensorError

from trainer.errors import UserError
from trainer.faults import in_words, is_fault, told
from trainer.files import remove, unused, written_whole
from trainer.training.safety import FILES, Reserve, reserved


def test_the_reserve_holds_what_was_asked_for_and_is_gone_afterwards(tmp_path):
    with reserved(tmp_path, 3_000_000) as reserve:
        files = list(reserve.path.iterdir())
        assert len(files) == FILES
        assert sum(file.stat().st_size for file in files) == 3_000_000
        assert sum(file.stat().st_blocks for file in files) * 512 >= 3_000_000  # real blocks, no hole
        reserve.give_back()
        assert not list(tmp_path.iterdir())
    with reserved(tmp_path, 10):
        pass
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_the_reserve_is_left_as_it_was(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Reserve(tmp_path, 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), "a.bin: the disk is full, or has no room"),
        (OSError(errno.ENOSPC, "No space left on device"), "run: the disk is full, or has no room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: no permission: change the permissions"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "run: the disk is full, or has no room"),
        (SafetensorError("header too large"), r"run: the file cannot be read or written \('header too large'\)"),
        (
            sqlite3.DatabaseError("file is not a database"),
            r"run: the database cannot be read or written \('file is not",
        ),
        (MemoryError(), "run: the computer's memory is full: close some programs"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            "run: not text in UTF-8 .*: save it as UTF-8",
        ),
        (OSError(errno.EADDRINUSE, "Address already in use"), "run: Address already in use"),
        (OSError("one\nof\nlines"), r"run: 'one\\nof\\nlines'"),
    ],
)
def test_what_a_machine_does_is_one_line_with_the_place_and_the_remedy(error, words, tmp_path):
    assert is_fault(error)
    with pytest.raises(UserError, match=f"^{words}") as caught, told("run"):
        raise error
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_program_is_no_fault_of_a_machine():
    for error in (ValueError("x"), KeyError("x"), RuntimeError("x")):
        assert not is_fault(error)
        with pytest.raises(type(error)), told("run"):
            raise error


def test_a_long_path_is_shortened():
    assert len(in_words(OSError(errno.ENAMETOOLONG, "File name too long", "n" * 5000))) < 300


def test_what_cannot_be_removed_gives_its_name_up(tmp_path, monkeypatch):
    path = tmp_path / "a.partial"
    path.write_text("old")
    assert unused(path) == path
    assert not path.exists()
    path.write_text("old")
    monkeypatch.setattr(type(path), "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "in use")))
    assert not remove(path)
    assert unused(path) == tmp_path / "a.partial-2"
    with written_whole(tmp_path / "a") as partial:
        partial.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
