"""What a test cannot do without."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from comfy_install import HostError


def required(find: Callable[[], Path]) -> Path:
    """What `find` finds, or the end of the test: it is skipped, but fails where CI is set."""
    try:
        return find()
    except HostError as problem:
        reason = str(problem)
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def package(name: str) -> ModuleType:
    """A module of a package that only tests need, or the end of the test as in `required`."""
    try:
        return import_module(name)
    except ImportError as problem:
        reason = f"{problem}: see the dev extra of pyproject.toml"
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")
