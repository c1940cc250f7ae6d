#!/usr/bin/env python3
"""Do the project's requirements, and each of its extras, install beside ComfyUI's without changing what is there?

usage: python tests/check_requirements.py [--python 3.12]

Resolves ComfyUI's own requirements, as a new installation has them and as one with the oldest transformers does, and
pins every version that comes out. With these pins the project's requirements have to resolve as well: then pip has no
reason to change a package, and can only add some. Nothing is installed, and only metadata is downloaded. Needs a
package index and uv (python -m pip install uv). Exit code 1 if a set of requirements does not fit.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Conflict(Exception):
    """Requirements that have no solution, with uv's explanation."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default="{}.{}".format(*sys.version_info[:2]), help="version to resolve for")
    python = parser.parse_args().python
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "host")]
    from comfy_install import source

    from dev import TORCH

    comfyui = [*required(source(print) / "requirements.txt"), *TORCH]
    default = required(ROOT / "requirements.txt")
    wanted = {"requirements.txt": default}
    wanted |= {f"the extra {name!r}": [*default, *more] for name, more in sorted(extras().items())}

    failed = 0
    for environment, pins in (("a new ComfyUI", []), ("ComfyUI with the oldest transformers", oldest("transformers"))):
        there = resolve([*comfyui, *pins], {}, python)
        print(f"{environment}, Python {python}: {len(there)} packages, transformers {there['transformers']}")
        for name, requirements in wanted.items():
            try:
                together = resolve([*comfyui, *requirements], there, python)
            except Conflict as conflict:
                failed += 1
                print(f"  {name}: DOES NOT FIT\n{conflict}")
                continue
            added = [f"{package} {version}" for package, version in together.items() if package not in there]
            print(f"  {name}: changes nothing, adds {len(added)}: {', '.join(added)}")
    print(f"{failed} sets of requirements do not fit" if failed else "all fit")
    return 1 if failed else 0


def required(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project["optional-dependencies"]


def oldest(package: str) -> list[str]:
    """The package at the lower bound that the project's requirements give it."""
    bounds = (re.match(rf"{package}>=([\d.]+)", line) for line in required(ROOT / "requirements.txt"))
    return [f"{package}=={bound[1]}" for bound in bounds if bound]


def resolve(requirements: list[str], pins: Mapping[str, str], python: str) -> dict[str, str]:
    """Package -> version of everything that an installation of the requirements has.

    Raises:
        Conflict: there is none that keeps the pins, package -> version.
    """
    with tempfile.TemporaryDirectory(prefix="requirements-") as folder:
        wanted, constraints = Path(folder, "wanted.txt"), Path(folder, "constraints.txt")
        wanted.write_text("\n".join(requirements), "utf-8")
        constraints.write_text("\n".join(f"{name}=={version}" for name, version in pins.items()), "utf-8")
        options = ["--quiet", "--no-header", "--no-annotate", "--python-version", python]
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            *options,
            "--constraint",
            str(constraints),
            str(wanted),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    if "No module named uv" in done.stderr:
        sys.exit("check_requirements.py: uv is missing: python -m pip install uv")
    if done.returncode:
        raise Conflict(done.stderr.strip())
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", done.stdout, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
