"""What a test cannot do without."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from comfy_install import HostError


def required(find: Callable[[], Path]) -> Path:
    """What `find` finds, or the end of the test: it is skipped, but fails where CI is set."""
    try:
        return find()
    except HostError as problem:
        reason = str(problem)
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
