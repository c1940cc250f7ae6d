#!/usr/bin/env python3
"""mypy over trainer/ and nodes/, with the settings of pyproject.toml; the arguments are mypy's own.

nodes/ import `..trainer`, so mypy needs a package around both. That package is the checkout's folder, whose name may be
no name for Python (neighbor-grpo) or a library's: here it is called `pack`.
"""

import os
import sys
from pathlib import Path

from mypy.build import build
from mypy.errors import CompileError
from mypy.main import process_options
from mypy.modulefinder import BuildSource

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    os.chdir(ROOT)
    sources, options = process_options(sys.argv[1:])
    pack = [BuildSource("__init__.py", "pack"), *(BuildSource(file.path, f"pack.{file.module}") for file in sources)]
    try:
        lines = build(pack, options).errors
    except CompileError as error:
        lines = error.messages
    errors = sum(": error: " in line for line in lines)
    print(*lines, f"mypy: {errors} errors in {len(pack)} files", sep="\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
