"""One owner at a time."""

import multiprocessing

import pytest

from trainer.lock import Busy, exclusive


def hold(name, ready):
    with exclusive(name, "busy"):
        ready.set()
        multiprocessing.Event().wait(60)


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
    assert ready.wait(60)
    with pytest.raises(Busy), exclusive(str(tmp_path), "busy"):
        pass
    owner.kill()
    owner.join()
    with exclusive(str(tmp_path), "busy"):
        pass
