#!/usr/bin/env python3
"""Set the project up in .venv beside this file, then do a job there.

usage: python dev.py COMMAND [ARGS...]

  comfy [ARGS...]  run a ComfyUI with this checkout as a pack: --port PORT, and ComfyUI's own options
  demo [ARGS...]   run the first workflow in a ComfyUI, compare before and after; --headless: without ComfyUI
  test [ARGS...]   ruff check, ruff format --check, mypy, then pytest ARGS in one process; without ARGS all tests,
                   spread over the cores; --quick: those of the engine, which need no ComfyUI and no browser

Needs Python 3.10 or newer and nothing else. The first call installs what is missing (several GB with CUDA's
libraries on Linux; pip's output goes to .venv/install.log), later calls start at once. To choose the build of torch
yourself, install torch and torchvision into .venv beforehand: a pair that imports is kept.
"""

import ast
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

# This file has to parse on Python 3.6, so that an old Python gets this line and no SyntaxError.
if sys.version_info < (3, 10):  # noqa: UP036
    command = " ".join(["py -3.11" if os.name == "nt" else "python3.11", *sys.argv])
    sys.stderr.write(
        "dev.py: Python 3.10 or newer is needed, this is {}.{}.{}: ".format(*sys.version_info[:3])
        + f"install Python 3.11 (python.org or your package manager), then run: {command}\n"
    )
    sys.exit(2)

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOG = VENV / "install.log"
# before the tests, one after the other
CHECKS = [["-m", "ruff", "check"], ["-m", "ruff", "format", "--check"], ["tests/check_types.py"]]
HOST, ENGINE = ["tests/host", "tests/web"], ["tests/card", "tests/trainer", "tests/faults"]  # what takes longest first
SPREAD = ["--dist", "loadfile", "--no-loadscope-reorder", "-n"]
MOST_WORKERS = 4  # each takes about 1.5 GB, and what needs the one ComfyUI runs in one of them
STAMP = VENV / "installed.stamp"  # written last: without it, or with another fingerprint in it, the next call installs
MINOR = "{}.{}".format(*sys.version_info[:2])
ENSUREPIP = ("-m", "ensurepip", "--default-pip")
ALONE = ["hpsv2==1.2.0"]  # for the tests; its dependencies pin an old pytest and protobuf, and nothing here needs them
TORCH = ["torch==2.14.1", "torchvision==0.29.1"]  # in no requirements file: in ComfyUI, torch belongs to ComfyUI

REMEDIES = {  # what pip printed -> what to do; the first match counts
    r"No space left|Errno 28\b": "free some disk space (up to 10 GB is needed), then run the same command again",
    r"SSLError|CERTIFICATE_VERIFY": "check the system's clock and certificates, or name your proxy's in PIP_CERT",
    r"NewConnectionError|NameResolution|Timeout|timed out|ProxyError|ConnectionReset|Connection aborted|RemoteDisc": (
        "check the network connection and the proxy settings, then run the same command again"
    ),
    r"(No matching distribution found for|Cannot install) torch": (
        f"torch has no build for this Python {MINOR} on this system: try a 64-bit Python 3.11, or install a pair of "
        "torch and torchvision into .venv yourself"
    ),
    r"No matching distribution|ResolutionImpossible": "correct requirements.txt, the dev extra or pip's package index",
    r"Permission denied|Access is denied": "make .venv writable for you, or delete it, then run the same command again",
}


class Problem(Exception):
    """What went wrong and what to do about it, in one line."""


def say(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)  # stdout belongs to the job: `demo --json` must stay JSON


# ---- setting up


def set_up() -> None:
    """Leave a complete .venv behind. Costs one start of Python if the stamp tells that nothing changed."""
    tools = development_tools()
    wanted = "\n".join([(ROOT / "requirements.txt").read_text("utf-8"), *TORCH, *tools, *ALONE, MINOR])
    fingerprint = hashlib.sha256(wanted.encode()).hexdigest().encode()
    version = venv_version()
    if version == MINOR and STAMP.is_file() and STAMP.read_bytes() == fingerprint:
        return

    started = time.monotonic()
    if version != MINOR or not has_pip():
        make_venv(version)
    STAMP.unlink(missing_ok=True)
    install_torch()
    say("[3/3] requirements and development tools")
    pip_install("the requirements", ["-r", "requirements.txt", *tools])
    pip_install("hpsv2", ["--no-deps", *ALONE])
    STAMP.write_bytes(fingerprint)
    say(f"ready after {time.monotonic() - started:.0f} s")


def development_tools() -> list[str]:
    """The `dev` extra of pyproject.toml. Python 3.10 reads no TOML, but a list of strings is also a Python literal."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    try:
        return ast.literal_eval(re.search(r"^dev = (\[.*?\])$", text, re.MULTILINE | re.DOTALL)[1])
    except (TypeError, ValueError, SyntaxError):
        raise Problem("pyproject.toml needs `dev = [...]`, a list of strings, as an optional dependency") from None


def ask(*args: str) -> tuple[bool, str]:
    """Whether .venv's Python succeeds with these arguments, and what it printed: its output, else its errors."""
    try:
        done = subprocess.run([str(PYTHON), *args], capture_output=True, cwd=ROOT, text=True, errors="replace")
    except OSError as error:  # not there, or a link to a Python that was removed
        return False, str(error)
    return done.returncode == 0, (done.stderr if done.returncode else done.stdout).strip()


def venv_version() -> str | None:
    """The minor version of .venv's Python, None if that is missing, broken or no virtual environment."""
    works, version = ask("-c", "import sys as s; assert s.prefix != s.base_prefix; print('%d.%d' % s.version_info[:2])")
    return version if works else None


def has_pip() -> bool:
    """Whether .venv's pip works, if need be after putting it in."""
    pip = ("-m", "pip", "--version")
    return ask(*pip)[0] or (ask(*ENSUREPIP)[0] and ask(*pip)[0])


def make_venv(previous: str | None) -> None:
    holds = f", it holds Python {previous}" if previous not in (None, MINOR) else ""
    say(f"[1/3] making .venv with Python {MINOR}" + (f" (anew{holds})" if VENV.exists() else ""))
    interpreter = getattr(sys, "_base_executable", sys.executable)  # not .venv's own, which is about to be cleared
    make = [interpreter, "-m", "venv", "--clear", "--without-pip", str(VENV)]
    done = subprocess.run(make, capture_output=True, text=True, errors="replace")
    works, output = done.returncode == 0, done.stdout + done.stderr
    if works:  # apart from venv, which would hide the cause of a failure here
        works, output = ask(*ENSUREPIP)
    if works:
        return
    if re.search("No module named '?(venv|ensurepip)|ensurepip is (not available|disabled)", output):
        raise Problem(
            f"this Python {MINOR} cannot make virtual environments: on Debian and Ubuntu run `sudo apt install "
            f"python{MINOR}-venv` (elsewhere install Python from python.org), then run the same command again"
        )
    raise Problem(f"making .venv failed: {last_error(output)}; {remedy_for(output)}")


def install_torch() -> None:
    imports_both = ("-c", "import torch, torchvision; print(torch.__version__)")
    works, version = ask(*imports_both)
    if works:
        say(f"[2/3] torch {version.splitlines()[0]} is there already")
        return
    say(f"[2/3] {' and '.join(TORCH)} (a large download, several minutes)")
    pip_install("torch", TORCH)
    works, output = ask(*imports_both)
    if not works:
        raise Problem(f"torch was installed but does not import: {last_error(output)}; delete .venv and run again")


def pip_install(what: str, args: list[str]) -> None:
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *args]
    with open(LOG, "a+", encoding="utf-8", errors="replace") as log:
        start = log.seek(0, os.SEEK_END)
        code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
        log.seek(start)
        output = log.read()
    if code != 0:
        raise Problem(f"installing {what} failed: {last_error(output)}; {remedy_for(output)} (log: {LOG})")


def last_error(output: str) -> str:
    """The last line that pip marked as an error, else the last line that says anything."""
    marked = re.findall(r"^ *error: (?!ResolutionImpossible)(.+)$", output, re.IGNORECASE | re.MULTILINE)
    return (marked or output.strip().splitlines() or ["it printed nothing"])[-1].strip(" .")


def remedy_for(output: str, otherwise: str = "delete .venv, then run the same command again") -> str:
    return next((remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, output)), otherwise)


# ---- the jobs


def run(args: list[str], **env: str) -> int:
    """Run .venv's Python in the project's root with `env` added, and return its exit code as a shell would.

    A terminal sends Ctrl-C to the child too, which may want to save its work first: this process only waits.
    """
    child = subprocess.Popen([str(PYTHON), *args], cwd=ROOT, env={**os.environ, **env})
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        try:
            code = child.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue


def threads(default: int) -> str:
    return os.environ.get("OMP_NUM_THREADS") or str(default)


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once if Linux tells, else as the system counts."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(path.read_text() if path.exists() else str(cpu))
    return len(siblings)


def comfy(args: list[str]) -> int:
    return run(["tests/host/serve.py", *args])


def demo(args: list[str]) -> int:
    script = ["-m", "trainer", "demo"] if "--headless" in args else ["tests/host/demo.py"]
    args = [arg for arg in args if arg != "--headless"]
    return run([*script, *args], OMP_NUM_THREADS=threads(min(4, physical_cores())))


def test(args: list[str]) -> int:
    """Stops at the first step that fails, with its exit code. prepare.py installs ComfyUI and a browser if it can."""
    quick = "--quick" in args
    args = [arg for arg in args if arg != "--quick"]
    env = {"OMP_NUM_THREADS": threads(1), "HF_HUB_OFFLINE": "1"}
    prepare = [] if quick else [["tests/host/prepare.py"]]
    spread, folders = [*SPREAD, str(min(max(physical_cores(), 2), MOST_WORKERS))], HOST + ENGINE
    if quick:
        folders = ENGINE
    elif args:
        spread, folders = [], []
    for step in [*CHECKS, *prepare, ["-m", "pytest", *spread, *folders, *args]]:
        code = run(step, **env)
        if code:
            say(f"{' '.join(step)}: exit code {code}")
            return code
    return 0


COMMANDS = {"comfy": comfy, "demo": demo, "test": test}


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print((__doc__ or "").strip())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        say(f"unknown command {argv[0]!r}: choose from {', '.join(COMMANDS)}")
        return 2
    try:
        set_up()
        return COMMANDS[argv[0]](argv[1:])
    except Problem as problem:
        say(str(problem))
    except OSError as error:
        say(f"{error}; {remedy_for(str(error), 'check that this folder is complete and writable')}")
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
