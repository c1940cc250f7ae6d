"""What other processes do in the tests of the lock; they import this module, which needs no torch."""

import multiprocessing

from patience import GUARD

from trainer.lock import exclusive, held


def hold(name: str, ready) -> None:
    with exclusive(name, "busy"):
        ready.set()
        multiprocessing.Event().wait(GUARD)


def ask(name: str, stop) -> None:
    while not stop.wait(0.001):
        held(name)
