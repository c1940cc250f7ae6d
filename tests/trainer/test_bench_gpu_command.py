"""`bench gpu`, the command: its process of checks, what of it reaches the terminal, and what is told if it dies."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainer.__main__ import main
from trainer.benchmarks.gpu import command
from trainer.benchmarks.gpu.again import in_another_process
from trainer.benchmarks.gpu.results import BROKEN
from trainer.benchmarks.gpu.table import CHECKS
from trainer.benchmarks.gpu.worker import wanted, work
from trainer.errors import UserError

ROOT = Path(__file__).parents[2]


def test_the_table_numbers_its_checks_from_0_and_only_names_some_of_them():
    assert [c.number for c in CHECKS] == list(range(16))
    assert [c.number for c in wanted("")] == list(range(16))
    assert [c.number for c in wanted("4, 2")] == [2, 4]
    with pytest.raises(UserError, match="--only 2,99: '99' is no check, they are 0 to 15"):
        wanted("2,99")


def test_without_a_gpu_the_command_is_one_line_and_exit_code_2(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["bench", "gpu", "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "error: bench gpu: torch sees no GPU here; it needs an NVIDIA card and a torch that is built for CUDA\n"
    )


class Options:
    only, plans, budget = "0,2", (), 100.0

    def __init__(self, json=True, out=None):
        self.json, self.out = json, out


def test_the_process_of_the_checks_prints_a_head_and_a_line_for_each():
    """With a budget in which nothing is begun: full-size models belong on a card."""
    said = []
    assert work("cpu", said.append, only="0,2", plans=[], began=time.monotonic(), budget=0.0) == 0
    head, *rows = map(json.loads, said)
    assert head["head"]["torch"] == torch.__version__
    assert head["checks"] == [[0, "ground"], [2, "offload has no race"]]
    assert [(row["number"], row["status"]) for row in rows] == [(0, "skipped"), (2, "skipped")]


SCRIPTED = """
import json, os, sys
only = sys.argv[sys.argv.index("--only") + 1]
print("a library talks", flush=True)
print(json.dumps({"head": {"card": "none"}, "checks": [[n, f"check {n}"] for n in (0, 2, 4) if str(n) in only]}))
for n in map(int, only.split(",")):
    how = {0: "ok", 2: "dies", 4: "breaks"}[n] if sys.argv[1] == "worst" else "ok"
    if how == "dies":
        print("first words\\nlast words", file=sys.stderr)
        sys.stdout.flush()
        os._exit(9)
    row = {"number": n, "name": f"check {n}", "status": "failed" if how == "breaks" else "ok"}
    print(json.dumps({**row, "values": [], "seconds": 1.0, "reason": "", "trace": "", "cut": False}), flush=True)
    if how == "breaks":
        sys.exit(3)
"""


def commanded(monkeypatch, script, **options):
    """(exit code, what was said) of the command with a process of checks that is a script."""
    said = []
    monkeypatch.setattr(command, "WORKER", script)
    asked = Options(**options)
    asked.only = "0,2,4"
    return command.main(asked, said.append), said


def test_checks_go_on_in_another_process_after_one_that_died_or_broke_the_device(monkeypatch, tmp_path):
    out = tmp_path / "gpu.json"
    code, said = commanded(monkeypatch, (sys.executable, "-c", SCRIPTED, "worst"), out=out)
    rows = [json.loads(line) for line in said[1:]]
    assert [(row["number"], row["name"], row["status"]) for row in rows] == [
        (0, "check 0", "ok"),
        (2, "check 2", "failed"),
        (4, "check 4", "failed"),
    ]
    assert rows[1]["reason"] == "its process ended with 9: last words"
    assert json.loads(out.read_text("utf-8")) == {"head": {"card": "none"}, "checks": rows}
    assert (code, BROKEN) == (1, 3)


def test_a_person_sees_the_card_first_and_a_summary_last(monkeypatch):
    code, said = commanded(monkeypatch, (sys.executable, "-c", SCRIPTED, "well"), json=False)
    assert (code, said[0], said[-1]) == (0, "card none", "3 ok")


def test_a_mistake_that_the_process_of_the_checks_finds_is_the_commands(monkeypatch):
    mistake = "import sys; print('error: --only 99: no check', file=sys.stderr); sys.exit(2)"
    with pytest.raises(UserError, match=r"^--only 99: no check$"):
        commanded(monkeypatch, (sys.executable, "-c", mistake))
    with pytest.raises(UserError, match=r"^bench gpu: its process ended with -?[0-9]+$"):
        commanded(monkeypatch, (sys.executable, "-c", "import os; os._exit(1)"))


ON_A_CARD = """
import sys, card
from trainer import device
from trainer.__main__ import parse, run
from trainer.__main__ import main
from trainer.benchmarks.gpu import command
from trainer.cli.libraries import apart
device.KINDS = ("card",)
command.WORKER = (sys.executable, "-c", {script!r}, "bench", "gpu", "--worker")
words = parse(sys.argv[1:])
with apart():
    code = run(words)
sys.exit(code)
"""
ON_A_CARD = ON_A_CARD.format(script=ON_A_CARD.replace("{script!r}", "''"))


def test_what_the_command_finds_reaches_the_terminal_and_what_libraries_say_does_not():
    words = ["bench", "gpu", "--budget", "0", "--only", "0,2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "card")])}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    result = subprocess.run([sys.executable, "-c", ON_A_CARD, *words], **options)
    assert (result.returncode, result.stderr) == (0, "")
    printed = result.stdout.splitlines()
    assert "card made of the CPU" in printed[0]
    assert printed[-1] == "2 skipped"


def test_as_json_the_terminal_has_a_head_and_a_row_for_each_check(monkeypatch, capsys):
    monkeypatch.setattr(command, "WORKER", (sys.executable, "-c", SCRIPTED, "well"))
    monkeypatch.setattr("trainer.device.pick_device", lambda _: "cuda")
    assert main(["bench", "gpu", "--only", "0,2,4", "--json"]) == 0
    head, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert head == {"head": {"card": "none"}}
    assert [row["number"] for row in rows] == [0, 2, 4]


def test_another_process_that_dies_is_told_by_its_last_words(monkeypatch):
    script = "import os, sys; print('error:', os.environ['PYTORCH_CUDA_ALLOC_CONF'], file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(command, "WORKER", (sys.executable, "-c", script))
    with pytest.raises(RuntimeError, match=r"the other process ended with 2: error: backend:cudaMallocAsync"):
        in_another_process([], 10.0)((2, 4), {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"})
