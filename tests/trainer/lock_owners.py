"""What other processes do in the tests of the lock; they import this module, which needs no torch."""

import multiprocessing
import os

from patience import GUARD

from trainer.lock import Busy, exclusive, held


def hold(name: str, ready) -> None:
    with exclusive(name, "busy"):
        ready.set()
        multiprocessing.Event().wait(GUARD)


def ask(name: str, stop) -> None:
    while not stop.wait(0.001):
        held(name)


def try_as(user: int, name: str, answers) -> None:
    """As another user: what comes of owning a folder, then of owning a device."""
    os.setgid(user)
    os.setuid(user)
    for thing in (name, f"device of {user}"):
        try:
            with exclusive(thing, "busy"):
                answers.put("mine")
        except Busy as busy:
            answers.put(str(busy))
