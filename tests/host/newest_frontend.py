"""The newest frontend of ComfyUI, out of its wheel on PyPI: users update it more often than the tests' ComfyUI.

It is unpacked into .comfy/ beside ComfyUI, which serves it by --front-end-root. Standard library only, as this runs
before anything is installed.
"""

import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from comfy_install import HOME, HostError, pip

PACKAGE = "comfyui-frontend-package"
NAME = "frontend-{}"  # in .comfy, by its version
INSIDE = "comfyui_frontend_package/static"  # of the wheel


def find() -> Path:
    """The folder for --front-end-root: the newest that is there.

    Raises:
        HostError: none is.
    """
    folders = [folder for folder in HOME.glob(NAME.format("*")) if (folder / INSIDE / "index.html").is_file()]
    if not folders:
        raise HostError("no newest frontend to test with: `python dev.py test` fetches it, or tests/host/prepare.py")
    return max(folders, key=_numbers) / INSIDE


def install(say: Callable[[str], None]) -> Path:
    """Like `find`, after fetching the newest release if it is not there; without a network, one that is there serves.

    Raises:
        HostError: none is there and none can be fetched.
    """
    try:
        version = _newest(pip("index", "versions", PACKAGE))
        folder = HOME / NAME.format(version)
        if not folder.is_dir():
            say(f"fetching the newest frontend, {version} (29 MB)")
            _fetch(version, folder)
    except HostError:
        if not list(HOME.glob(NAME.format("*"))):
            raise
    return find()


def _newest(listed: str) -> str:
    found = re.search(rf"^{PACKAGE} \((\S+)\)", listed, re.MULTILINE)
    if not found:
        raise HostError(f"pip lists no version of {PACKAGE}: {listed.strip()[:200]!r}")
    return found[1]


def _fetch(version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=HOME) as scratch:
        pip("download", "--no-deps", "--only-binary", ":all:", "--dest", scratch, f"{PACKAGE}=={version}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as archive:
            archive.extractall(Path(scratch, "whole"))
        os.replace(Path(scratch, "whole"), folder)  # whole or not at all


def _numbers(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", folder.name)]
