"""A console that is not UTF-8, is closed, or goes away loses characters, and no result."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli.lasting import lasting, missing

ROOT = Path(__file__).parents[2]
CONFIG = """
prompts = ["a “größer” 看板 🍎"]
model = {path = "embedded", device = "cpu"}
run = {folder = "läufe", iterations = 2, tiles_every = 0, base_every = 0}
sampling = {width = 64, height = 64, steps = 2}
grpo = {group_size = 2, anchors = 1, trained_steps = 1}
rewards = [{kind = "colourfulness", name = "größe"}]
"""


@pytest.fixture
def shell(tmp_path):
    """Runs a line in a shell, in which "trainer" is the command line, and the config is in place."""
    (tmp_path / "config.toml").write_text(CONFIG, "utf-8")

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        line = line.replace("trainer", f"{sys.executable} -m trainer")
        known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], cwd=tmp_path, env=known, capture_output=True)

    return run


def iterations(folder: Path) -> int:
    (newest,) = [max(p.name for p in (folder / "läufe" / "checkpoint").iterdir() if p.name.isdigit())]
    return int(newest)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"},
    ],
    ids=lambda environment: environment["PYTHONIOENCODING"],
)
def test_a_console_that_lacks_characters_shows_escapes(shell, tmp_path, environment):
    done = shell("trainer export 'grün 看板 🍎'", **environment)
    assert done.returncode == 2
    encoding = environment["PYTHONIOENCODING"].partition(":")[0]
    told = done.stderr.decode(encoding)
    assert told.startswith("error: ")
    assert "\\u770b\\u677f \\U0001f34e is no run" in told or "\\udce7\\udc9c\\udc8b" in told
    assert told.count("\n") == 1


def test_a_run_on_such_a_console_ends_as_on_any_other(shell, tmp_path):
    done = shell("trainer train config.toml", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == b"LoRA: l\\xe4ufe/lora.safetensors"
    assert b"gr\\xf6\\xdfe=" in done.stderr
    assert iterations(tmp_path) == 2


def test_json_is_the_same_on_every_console(shell):
    done = shell("trainer train config.toml --json", PYTHONIOENCODING="ascii:strict")
    assert json.loads(done.stdout)["run"] == "läufe"


CLOSED = {
    "everything": "trainer train config.toml <&- >&- 2>&-; echo $? >code",
    "its reader": "{ trainer train config.toml 2>&1; echo $? >code; } | true",
}


@pytest.mark.parametrize("what", CLOSED)
def test_a_run_outlives_who_looks_at_it(shell, tmp_path, what):
    done = shell(CLOSED[what])
    assert ((tmp_path / "code").read_text(), done.stdout, done.stderr) == ("0\n", b"", b"")
    assert iterations(tmp_path) == 2


def test_help_and_mistakes_may_have_no_reader(shell):
    for line in ("trainer --help >&-", "trainer fly 2>&-", "trainer --help | true", "trainer train gone.toml >&- 2>&-"):
        done = shell(line)
        assert done.returncode == (0 if "--help" in line else 2)
        assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_finds_no_room_is_known_and_one_that_nobody_reads_is_not_missed():
    with open("/dev/full", "wb", buffering=0) as full:
        stream = lasting(full.fileno(), "utf-8", None)
        stream.write("a result\n")
        assert missing(stream).errno == errno.ENOSPC
    reader, writer = os.pipe()
    os.close(reader)
    stream = lasting(writer, "utf-8", None)
    stream.write("a result\n")
    os.close(writer)
    stream.write("another\n")
    assert missing(stream) is None


def test_a_pipe_that_does_not_block_gets_all_of_it(tmp_path):
    program = """
import os, sys
from trainer.cli.lasting import lasting
os.set_blocking(1, False)
lasting(1, "utf-8", None).write("x" * 300_000 + "end")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert done.stdout == b"x" * 300_000 + b"end"


def test_no_place_for_temporary_files_stops_no_command(shell):
    done = shell("trainer export gone", TMPDIR="/gone", TEMP="/gone", TMP="/gone", HOME="/gone")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: gone is no run")
