"""One owner at a time."""

import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from lock_owners import ask, hold, try_as
from patience import GUARD, until

from trainer import lease, lock
from trainer.device import training_on
from trainer.lock import Busy, exclusive, held

ROOT = Path(__file__).parents[2]


@contextmanager
def owner_of(folder):
    """Another process that owns the folder, and is killed."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=hold, args=(str(folder), ready))
    owner.start()
    assert ready.wait(GUARD)
    try:
        yield
    finally:
        owner.kill()
        owner.join()


def test_a_second_owner_is_refused_in_this_process_and_a_third_may_follow(tmp_path):
    name = str(tmp_path)
    (tmp_path / "another").mkdir()
    with exclusive(name, "busy: wait"):
        with pytest.raises(Busy, match="busy: wait"), exclusive(name, "busy: wait"):
            pass
        with exclusive(name + "/another", "busy"):
            pass
    with exclusive(name, "busy"):
        pass
    assert [p.name for p in tmp_path.rglob("*")] == ["another"]


def test_an_owner_that_is_killed_lets_go(tmp_path):
    with owner_of(tmp_path), pytest.raises(Busy), exclusive(str(tmp_path), "busy"):
        pass
    with exclusive(str(tmp_path), "busy"):
        pass


def test_whether_there_is_an_owner_is_told_without_a_trace(tmp_path):
    name = str(tmp_path)
    assert not held(name)
    assert not held(str(tmp_path / "missing"))
    assert not list(tmp_path.iterdir())
    with exclusive(name, "busy"):
        assert held(name)
        assert held(name)
    assert not held(name)


def test_another_process_is_seen_as_owner_until_it_is_killed(tmp_path):
    with owner_of(tmp_path):
        assert held(str(tmp_path))
    assert not held(str(tmp_path))


def test_an_owner_with_another_folder_for_temporary_files_holds_too(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    with owner_of(tmp_path):
        monkeypatch.undo()
        assert held(str(tmp_path))
        with pytest.raises(Busy), exclusive(str(tmp_path), "busy"):
            pass


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root becomes another user")
def test_an_owner_who_is_another_user_holds_too_and_needs_no_name(tmp_path):
    """User 4321 has no entry in passwd and may not write to the lock's file, nor to anything in the folder."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    (tmp_path / lock.NAME).touch()

    def stranger() -> list[str]:
        context = multiprocessing.get_context("spawn")
        answers = context.SimpleQueue()
        process = context.Process(target=try_as, args=(4321, str(tmp_path), answers))
        process.start()
        process.join(GUARD)
        return [answers.get(), answers.get()]

    assert stranger() == ["mine", "mine"]
    (tmp_path / lock.NAME).touch()
    with exclusive(str(tmp_path), "busy"):
        assert stranger() == ["busy", "mine"]


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that knows none."""
    monkeypatch.setattr(lock, "_lock", no_locks)
    monkeypatch.setattr(lock, "_look", no_locks)


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_lease_holds_and_goes(tmp_path):
    name = str(tmp_path)
    for _ in range(2):
        assert not held(name)
        with exclusive(name, "busy"):
            assert held(name)
            with pytest.raises(Busy), exclusive(name, "busy"):
                pass
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("gone", ["process", "time", "nonsense"])
def test_a_stale_lease_is_recognised(tmp_path, gone):
    name, left = str(tmp_path), tmp_path / ".lock.lease"
    lock._path(name).touch()
    here, pid = socket.gethostname(), os.getpid()
    left.write_text(json.dumps({"host": "another" if gone == "time" else here, "pid": pid}))
    assert held(name)
    if gone == "process":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        left.write_text(json.dumps({"host": here, "pid": ended.pid}))
    elif gone == "time":
        os.utime(left, (time.time() - 2 * lease.STALE,) * 2)
    else:
        left.write_bytes(b"\xff")
        assert held(name)  # it may be half written
        os.utime(left, (time.time() - 2 * lease.STALE,) * 2)
    assert not held(name)
    with exclusive(name, "busy"):
        assert held(name)


@pytest.mark.usefixtures("without_locks")
def test_a_lease_is_touched_as_long_as_it_is_owned(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with exclusive(str(tmp_path), "busy"):
        os.utime(tmp_path / ".lock.lease", (0, 0))
        until(lambda: (tmp_path / ".lock.lease").stat().st_mtime > 0)


def test_a_lock_whose_file_its_owner_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Two who wait for a third: it removes the file that they have opened already."""
    seen, opened = [], lock._opened

    def late(path):
        file = opened(path)
        if not seen:
            path.unlink()
        seen.append(os.fstat(file.fileno()).st_ino)
        return file

    monkeypatch.setattr(lock, "_opened", late)
    with exclusive(str(tmp_path), "busy"):
        assert len(seen) == 2
        monkeypatch.undo()
        assert held(str(tmp_path))


def test_who_starts_is_never_refused_because_others_ask(tmp_path):
    name, context = str(tmp_path), multiprocessing.get_context("spawn")
    stop = context.Event()
    asking = [context.Process(target=ask, args=(name, stop)) for _ in range(2)]
    asking += [threading.Thread(target=ask, args=(name, stop))]
    for each in asking:
        each.start()
    try:
        for _ in range(200):
            with exclusive(name, "refused because somebody asked"):
                assert held(name)
    finally:
        stop.set()
        for each in asking:
            each.join(GUARD)


def test_a_long_look_is_waited_out_and_an_owner_is_not(tmp_path):
    name = str(tmp_path)
    lock._path(name).touch()
    with open(lock._path(name)) as looking:
        lock._look(looking)
        assert not held(name)  # who looks is no owner
        threading.Timer(lock.PATIENCE / 3, looking.close).start()
        with exclusive(name, "busy"):
            begun = time.monotonic()
            with pytest.raises(Busy), exclusive(name, "busy"):
                pass
            assert time.monotonic() - begun >= lock.PATIENCE


def test_a_folder_is_the_same_by_whatever_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with exclusive(str(tmp_path / "link"), "busy"):
        assert held(str(tmp_path / "folder"))
        assert not held("folder")


def test_a_device_has_room_for_one_training_by_whatever_name_and_the_cpu_for_several():
    busy = "another training is running on cuda: wait for it, or cancel it"
    others = training_on("cuda:1"), training_on("cpu"), training_on("cpu")
    with training_on("cuda:0"), others[0], others[1], others[2], pytest.raises(Busy, match=busy):
        training_on("cuda").__enter__()
    with training_on("cuda"):
        pass
