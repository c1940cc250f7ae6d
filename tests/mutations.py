#!/usr/bin/env python3
"""Do the tests notice plausible mistakes? Each mutation in mutated/ must make one of its tests fail.

usage: python tests/mutations.py [--only TEXT] [--changed BASE] [-j N]

A mutation is applied to a copy of the repository in a temporary folder, never to the working tree, and its tests run
there with `pytest -x -q`. Exit code 1 if a mutation survives, if the tests fail without one, or if a snippet does not
occur exactly once. A mutant that runs out of time counts as noticed.
"""

import argparse
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from mutated import TARGETS

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("trainer", "tests", "web", "docs", "pyproject.toml")
LARGE = 200_000  # bytes; larger files (the embedded model's weights) are linked
TIME_LIMIT = 120  # seconds a mutant
PASSED, FAILED = 0, 1  # pytest's exit codes; the others mean that it did not get as far as running the tests
# imported once, before the processes fork: a mutant then takes a second instead of ten
PRELOADED = [
    "pytest",
    "hypothesis",
    "peft",
    "diffusers.pipelines.flux.pipeline_flux",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "transformers.models.clip.modeling_clip",
    "open_clip",
    "transformers.models.t5.modeling_t5",
]


class Mutant(NamedTuple):
    name: str
    file: str = ""  # empty: the repository as it is
    old: str = ""
    new: str = ""
    tests: tuple[str, ...] = ()


class Broken(Exception):
    """A mutation that cannot be tried."""


def all_mutants() -> list[Mutant]:
    found = []
    for target in TARGETS:
        tests = tuple(f"tests/trainer/{test}" for test in target.tests)
        found += [
            Mutant(f"{target.file}: {name}", target.file, old, new, tests)
            for name, (old, new) in target.mutations.items()
        ]
    return found


def mutants(only: str, changed: str | None) -> list[Mutant]:
    """Those with `only` in their name, of the files that differ from the commit `changed`."""
    for mutant in (found := all_mutants()):
        check(mutant)
    found = [mutant for mutant in found if only.lower() in mutant.name.lower()]
    if not found:
        raise Broken(f"no mutation has {only!r} in its file or name")
    if changed is None:
        return found
    differ = files_changed_since(changed)
    return [mutant for mutant in found if mutant.file in differ]


def files_changed_since(base: str) -> set[str]:
    """Since the branch left `base`, the working tree included."""
    command = ["git", "diff", "--name-only", "--merge-base", base]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"--changed {base}: {done.stderr.strip()}")
    return set(done.stdout.splitlines())


def check(mutant: Mutant) -> None:
    """Raises Broken if it cannot be tried."""
    source = (ROOT / mutant.file).read_text("utf-8")
    count = source.count(mutant.old)
    if count != 1:
        raise Broken(f"{mutant.name}: the snippet occurs {count} times, not once: {mutant.old!r}")
    if mutant.old == mutant.new:
        raise Broken(f"{mutant.name}: nothing is changed")
    if missing := [test for test in mutant.tests if not (ROOT / test).is_file()]:
        raise Broken(f"{mutant.name}: there is no {missing[0]}")
    try:
        compile(source.replace(mutant.old, mutant.new), mutant.file, "exec")
    except SyntaxError as error:
        raise Broken(f"{mutant.name}: not Python any more ({error})") from None


def copy_repository(mutant: Mutant, target: Path) -> None:
    def copy(source: str, destination: str) -> None:
        if os.path.getsize(source) > LARGE and os.name != "nt":
            os.symlink(source, destination)
        else:
            shutil.copyfile(source, destination)

    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            # without __pycache__: a stale .pyc would run instead of the mutated file
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, target / name, copy_function=copy, ignore=ignored)
        else:
            shutil.copyfile(source, target / name)
    if mutant.file:
        path = target / mutant.file
        path.write_text(path.read_text("utf-8").replace(mutant.old, mutant.new), "utf-8")


def run_tests(folder: str, tests: tuple[str, ...]) -> None:
    """In a process of its own: the tests of the copy in `folder`, their output in a file there."""
    os.chdir(folder)
    log = os.open("output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.path.insert(0, folder)
    found = Path(importlib.util.find_spec("trainer").origin)
    if not found.is_relative_to(folder):
        sys.exit(f"the tests would run on {found}, not on the copy")
    import pytest

    # one device is enough: what runs on the card as well computes the same there
    sys.exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not card", *tests])))


class Job:
    """A mutant at work."""

    def __init__(self, context, mutant: Mutant, tests: tuple[str, ...], seconds: float):
        self.mutant = mutant
        self.folder = Path(tempfile.mkdtemp(prefix="mutant-")).resolve()
        copy_repository(mutant, self.folder)
        self.process = context.Process(target=run_tests, args=(str(self.folder), tests))
        self.process.start()
        self.started = time.monotonic()
        self.deadline = self.started + seconds

    def result(self) -> tuple[int | None, str] | None:
        """Exit code (None: out of time) and output, or nothing while it runs."""
        if self.process.is_alive():
            if time.monotonic() < self.deadline:
                return None
            code = None
        else:
            code = self.process.exitcode
        log = self.folder / "output.txt"
        output = log.read_text("utf-8", "replace") if log.exists() else ""
        self.discard()
        return code, output

    def discard(self) -> None:
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


def run_all(context, chosen: list[Mutant], jobs: int) -> list[str]:
    """Names of the mutants that were not noticed."""
    waiting, running, survived = chosen[::-1], [], []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                running.append(Job(context, mutant, mutant.tests, TIME_LIMIT))
            wait([job.process.sentinel for job in running], timeout=1)
            for job in list(running):
                if (result := job.result()) is not None:
                    running.remove(job)
                    survived += judge(job, *result)
    finally:
        for job in running:
            job.discard()
    return survived


def judge(job: Job, code: int | None, output: str) -> list[str]:
    name = job.mutant.name
    if code not in (PASSED, FAILED, None):
        raise Broken(f"{name}: pytest ended with {code}\n{output[-3000:]}")
    verdict = {PASSED: "SURVIVED", FAILED: "noticed", None: "out of time"}[code]
    print(f"{verdict:11} {time.monotonic() - job.started:5.1f} s  {name}", flush=True)
    return [name] if code == PASSED else []


def run_unmutated(context, tests: tuple[str, ...]) -> None:
    job = Job(context, Mutant("the tests without a mutation"), tests, 10 * TIME_LIMIT)
    job.process.join(10 * TIME_LIMIT)
    code, output = job.result()
    if code != PASSED:
        raise Broken(f"the tests fail without a mutation\n{output[-3000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="mutations with this in their file or name")
    parser.add_argument("--changed", metavar="BASE", help="mutations of the files that differ from this commit")
    parser.add_argument("-j", dest="jobs", type=int, default=1, metavar="N", help="processes at once (default 1)")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload(PRELOADED)
    try:
        chosen = mutants(arguments.only, arguments.changed)
        if chosen:
            run_unmutated(context, tuple(sorted({test for mutant in chosen for test in mutant.tests})))
        survived = run_all(context, chosen, max(1, arguments.jobs))
    except Broken as error:
        print(f"mutations.py: {error}", file=sys.stderr)
        return 1
    for name in survived:
        print(f"survived: {name}")
    print(f"{len(chosen)} mutations, {len(survived)} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
