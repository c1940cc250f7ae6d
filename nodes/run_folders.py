"""The folders of runs in ComfyUI's output, by the names that users give them."""

from __future__ import annotations

from pathlib import Path

from ..trainer.errors import brief
from . import host


def is_plain(run_name: str) -> bool:
    """Whether it is a folder's name, or empty; a hidden folder's is none, as the panel does not show it."""
    name = run_name.strip()
    return Path(name).name == name and not name.startswith(".") and "\0" not in name


def not_plain(run_name: str) -> str:
    """What is told of another name."""
    return f"run_name {brief(run_name)} must be the plain name of a folder"


def run_folder(name: str, resume: bool) -> Path:
    """The newest folder of a name to go on with, or one that is not there yet."""
    folder, n = host.runs_folder() / name, 1
    taken = []
    while folder.exists():
        taken.append(folder)
        n += 1
        folder = host.runs_folder() / f"{name}-{n}"
    return taken[-1] if resume and taken else folder
