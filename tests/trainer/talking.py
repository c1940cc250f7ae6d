"""Libraries made to talk when they are imported, in every way there is: on any machine what some do on a few."""

import os
from pathlib import Path

WAYS = ("stderr", "stdout", "warning", "logger", "handler", "descriptor", "child", "exit")
TALK = """
import atexit, logging, os, subprocess, sys, warnings

def talk(name):
    say = lambda way: f"{name} talks by {way}"
    print(say("stderr"), file=sys.stderr)
    print(say("stdout"), flush=True)
    warnings.warn(say("warning"))
    logging.getLogger(name).warning(say("logger"))
    logger = logging.getLogger(f"{name}.own")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.propagate = False
    logger.warning(say("handler"))
    os.write(2, (say("descriptor") + "\\n").encode())
    subprocess.run([sys.executable, "-S", "-c", f"print({say('child')!r})"], check=True)
    atexit.register(lambda: print(say("exit"), file=sys.stderr))
"""
# Python imports this by itself; it finds nothing, but hears what is looked for
HEAR = """
import sys
from talk import talk

class Ear:
    def find_spec(self, name, *_):
        if name in {names}:
            talk(name)

sys.meta_path.insert(0, Ear())
"""


def talking(folder: Path, *names: str) -> dict[str, str]:
    """An environment in which these libraries talk, see `said`; `folder` gets what that needs.

    `from talk import talk` makes a library of any other name talk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "talk.py").write_text(TALK, "utf-8")
    (folder / "sitecustomize.py").write_text(HEAR.format(names=set(names)), "utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def said(name: str) -> list[str]:
    """What a library of this name says, a line each, perhaps with more before it."""
    return [f"{name} talks by {way}" for way in WAYS]
