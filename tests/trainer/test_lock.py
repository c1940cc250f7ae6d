"""One owner at a time."""

import multiprocessing
import threading
import time
from pathlib import Path

import pytest
from lock_owners import ask, hold
from patience import GUARD

from trainer import lock
from trainer.device import training_on
from trainer.lock import Busy, exclusive, held


def test_a_second_owner_is_refused_in_this_process_and_a_third_may_follow(tmp_path):
    name = str(tmp_path)
    with exclusive(name, "busy: wait"):
        with pytest.raises(Busy, match="busy: wait"), exclusive(name, "busy: wait"):
            pass
        with exclusive(name + "/another", "busy"):
            pass
    with exclusive(name, "busy"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_owner_that_is_killed_lets_go(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=hold, args=(str(tmp_path), ready))
    owner.start()
    assert ready.wait(GUARD)
    with pytest.raises(Busy), exclusive(str(tmp_path), "busy"):
        pass
    owner.kill()
    owner.join()
    with exclusive(str(tmp_path), "busy"):
        pass


def test_whether_there_is_an_owner_is_told_without_a_trace(tmp_path):
    name = str(tmp_path / "never owned")
    assert not held(name)
    assert not Path(lock._path(name)).exists()
    with exclusive(name, "busy"):
        assert held(name)
        assert held(name)
    assert not held(name)


def test_another_process_is_seen_as_owner_until_it_is_killed(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=hold, args=(str(tmp_path), ready))
    owner.start()
    assert ready.wait(GUARD)
    assert held(str(tmp_path))
    owner.kill()
    owner.join()
    assert not held(str(tmp_path))


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
    with exclusive(name, "busy"):
        pass
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
