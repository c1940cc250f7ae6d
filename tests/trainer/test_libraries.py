"""What libraries print, log and warn of goes to a log; the terminal has our lines alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from talking import said, talking

ROOT = Path(__file__).parents[2]
BEGIN = """
import logging, sys
from pathlib import Path
from trainer.cli.libraries import apart, log_into
from trainer.cli.output import note, print_json, say
from talk import talk
"""


@pytest.fixture
def process(tmp_path):
    """Runs a program in a process of its own, in which the library "babble" talks if `talk("babble")` is called."""

    def run(program: str) -> subprocess.CompletedProcess:
        environment = talking(tmp_path / "libraries")
        environment["PYTHONPATH"] += os.pathsep + str(ROOT)
        line = [sys.executable, "-c", BEGIN + program]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_libraries_are_heard_in_the_log_alone(process, tmp_path):
    result = process("""
with apart():
    talk("early")
    say("a result")
    note("on the way")
    log_into(Path())
    talk("late")
    print_json({"a": 1})
sys.exit(3)
""")
    assert result.stdout == 'a result\n{\n  "a": 1\n}\n'
    assert result.stderr == "on the way\n"
    assert result.returncode == 3
    log = (tmp_path / "log.txt").read_text("utf-8")
    assert [line for line in said("early") + said("late") if line not in log] == []
    assert log.index("early talks by child") < log.index("late talks by stderr")
    assert "WARNING early: early talks by logger" in log


def test_a_log_that_stands_there_is_added_to(process, tmp_path):
    (tmp_path / "log.txt").write_text("of yesterday\n")
    process('with apart():\n    talk("today")\n    log_into(Path())')
    log = (tmp_path / "log.txt").read_text("utf-8")
    assert log.startswith("of yesterday\n")
    assert "today talks by descriptor" in log


def test_without_a_run_nothing_of_it_is_left(process, tmp_path):
    result = process('with apart():\n    talk("babble")')
    assert (result.stdout, result.stderr) == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"libraries"}


def test_what_our_own_loggers_warn_of_is_one_line_on_the_terminal_and_in_the_log(process, tmp_path):
    result = process("""
with apart():
    log_into(Path())
    logging.getLogger("trainer.models.storage.pinned").warning("no more\\n  than %d GiB", 3)
    logging.getLogger("trainer").info("nobody needs this")
    logging.getLogger("trainers").warning("of another library")
""")
    assert (result.stdout, result.stderr) == ("", "warning: no more than 3 GiB\n")
    log = (tmp_path / "log.txt").read_text("utf-8")
    assert "WARNING trainer.models.storage.pinned: no more\n  than 3 GiB" in log
    assert "of another library" in log
    assert "nobody needs this" not in log


def test_what_broke_is_told_with_its_traceback(process):
    result = process("""
with apart():
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("trainer.reward_server").exception("a reward failed")
    logging.getLogger("asyncio").error("nobody waited for it")
""")
    lines = result.stderr.splitlines()
    assert lines[:2] == ["error: a reward failed", "Traceback (most recent call last):"]
    assert lines[-2:] == ["ZeroDivisionError: division by zero", "error: nobody waited for it"]


def test_an_exception_that_nobody_expected_reaches_the_terminal(process):
    result = process('with apart():\n    talk("babble")\n    say("a result")\n    raise RuntimeError("a bug")')
    assert result.stdout == "a result\n"
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert "RuntimeError: a bug\n" in result.stderr
    assert result.returncode == 1


def test_a_line_on_the_way_leaves_the_progress_bar_whole(process):
    result = process("""
from trainer.cli.output import terminal
with apart():
    from tqdm import tqdm
    bar = tqdm(total=2, file=terminal.err, ascii=True, bar_format="bar {n_fmt}")
    bar.update()
    note("on the way")
    bar.close()
""")
    shown = [line.strip() for line in result.stderr.splitlines()]
    assert "bar 1" in shown[shown.index("on the way") + 1 :]


def test_in_somebody_elses_process_everything_stays_as_it_is(process):
    result = process('say("a result")\nnote("on the way")\nlog_into(Path())\nprint("theirs")')
    assert (result.stdout, result.stderr) == ("a result\ntheirs\n", "on the way\n")
