"""One file to make mistakes in."""

from typing import NamedTuple


class Target(NamedTuple):
    file: str
    tests: tuple[str, ...]  # under tests/trainer, those that should notice
    mutations: dict[str, tuple[str, str]]  # name -> snippet that occurs exactly once in the file, what to put there
