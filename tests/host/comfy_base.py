"""ComfyUI's base directory: models, settings, and the packs linked into custom_nodes."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from comfy_install import HostError

FOLDERS = "custom_nodes models/diffusion_models models/text_encoders models/vae models/loras input output user/default"


def prepare(base: Path, packs: Mapping[str, Path]) -> None:
    """Make what a start needs and what is not there yet; what a user put there stays.

    Raises:
        HostError: a pack cannot be linked, or the frontend is missing.
    """
    for folder in FOLDERS.split():
        (base / folder).mkdir(parents=True, exist_ok=True)
    settings = base / "user/default/comfy.settings.json"
    if not settings.exists():  # without these the first visit opens a dialog over the page
        seen = {"Comfy.TutorialCompleted": True, "Comfy.InstalledVersion": _frontend()}
        settings.write_text(json.dumps(seen), "utf-8")
    for name, folder in packs.items():
        _link(base / "custom_nodes" / name, folder.resolve())


def _frontend() -> str:
    try:
        return version("comfyui-frontend-package")
    except PackageNotFoundError:
        raise HostError("ComfyUI's frontend is not installed: run tests/host/prepare.py") from None


def _link(link: Path, folder: Path) -> None:
    if link.is_symlink():
        link.unlink()
    try:
        link.symlink_to(folder, target_is_directory=True)
    except FileExistsError:
        raise HostError(f"{link} is in the way of a link to {folder}: remove it") from None
    except OSError as error:
        hint = "switch on Windows' developer mode" if os.name == "nt" else "choose a file system with symbolic links"
        raise HostError(f"cannot link {link} to {folder} ({error}): {hint}") from None
