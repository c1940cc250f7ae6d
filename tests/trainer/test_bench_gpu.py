"""`bench gpu`, the harness: what a check says is its result, whatever happens in it, and it is on disk at once."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_bench import bench_of, check

from trainer.__main__ import main
from trainer.benchmarks.gpu import command
from trainer.benchmarks.gpu.again import in_another_process
from trainer.benchmarks.gpu.card import Card, Watched
from trainer.benchmarks.gpu.counts import LOADED, Case, Counts
from trainer.benchmarks.gpu.harness import Check, attempt, run
from trainer.benchmarks.gpu.memory import cases
from trainer.benchmarks.gpu.report import Report as GpuReport
from trainer.benchmarks.gpu.report import all_well, lines, summary
from trainer.benchmarks.gpu.results import BROKEN, Broken, Result, Skipped, Value
from trainer.benchmarks.gpu.table import CHECKS
from trainer.benchmarks.gpu.worker import wanted, work
from trainer.errors import ConfigError, UserError
from trainer.models.storage.memory import MemoryPlan
from trainer.planning.phases import Peak
from trainer.planning.report import Prediction, Report

ROOT = Path(__file__).parents[2]


def good(bench):
    yield Value("good", 1.0, "s", high=1.0)


def odd(bench):
    yield from good(bench)
    yield Value("odd", 2.0, "s", high=1.0)


def broken(bench):
    yield from good(bench)
    raise ValueError("no kernel\nfor this")


def absent(bench):
    raise Skipped("this device has no wings")
    yield


TABLE = [Check(n, f.__name__, 1.0, f, "") for n, f in enumerate((good, odd, broken, absent))]


@pytest.fixture
def bench(flux_dev):
    return bench_of(flux_dev)


@pytest.mark.parametrize(
    ("value", "ok", "expected"),
    [
        (Value("v", 2.0, low=1, high=2), True, "1 to 2"),
        (Value("v", 2.01, low=1, high=2), False, "1 to 2"),
        (Value("v", 0.99, low=1), False, "at least 1"),
        (Value("v", 1.0, high=1), True, "at most 1"),
        (Value("v", 0.0, low=0, high=0), True, "0"),
        (Value("v", math.nan, low=0), False, "at least 0"),
        (Value("v", math.nan, high=0), False, "at most 0"),
        (Value("v", "nan", low=0), False, "at least 0"),  # as another process tells it in JSON
        (Value("v", "a text"), True, ""),
        (Value("v", math.nan), True, ""),
        (Value("v", "fp8", equals="fp8"), True, "fp8"),
        (Value("v", "bf16", equals="fp8"), False, "fp8"),
    ],
)
def test_a_value_is_held_against_its_range_and_not_a_number_never_fits(value, ok, expected):
    assert (value.ok, value.expected) == (ok, expected)


def test_a_number_that_json_lacks_is_written_as_a_word():
    assert Value("v", math.nan).to_dict()["value"] == "nan"
    assert Value("v", math.inf).to_dict()["value"] == "inf"
    assert json.dumps(Value("v", 1.5).to_dict(), allow_nan=False)


def test_each_check_has_its_own_try_and_the_next_one_goes_on(bench):
    told = []
    results = run(bench, TABLE, budget=100, began=time.monotonic(), tell=told.append)
    assert results == told
    assert [r.status for r in results] == ["ok", "deviates", "failed", "skipped"]
    assert [r.reason for r in results] == [
        "",
        "odd is 2 s, expected at most 1",
        "ValueError: no kernel",
        "this device has no wings",
    ]
    assert [len(r.values) for r in results] == [1, 2, 1, 0]  # what was found before the exception is kept
    assert "in broken" in results[2].trace
    assert not any(r.trace for r in (results[0], results[1], results[3]))


def test_a_failed_check_leaves_no_model_behind(bench):
    bench.loaded = (("bf16", 0.0), None)
    run(bench, [TABLE[1]], budget=100, began=time.monotonic(), tell=lambda _: None)
    assert bench.loaded
    run(bench, [TABLE[2]], budget=100, began=time.monotonic(), tell=lambda _: None)
    assert bench.loaded is None


def test_what_would_end_after_the_budget_is_not_begun(bench):
    table = [Check(0, "long", 50.0, broken, ""), Check(1, "short", 1.0, good, "")]
    began = time.monotonic() - 70  # 30 of 100 seconds are left
    long, short = run(bench, table, budget=100, began=began, tell=lambda _: None)
    assert (long.status, short.status) == ("skipped", "ok")
    assert long.reason.startswith("takes about 50 s, of the budget ")


def test_a_check_that_lasts_too_long_keeps_what_it_found(bench):
    result = attempt(TABLE[1], bench, deadline=time.monotonic() - 1)
    assert (result.status, result.reason, result.cut) == ("ok", "cut off by the budget after 1 values", True)
    assert [value.name for value in result.values] == ["good"]
    assert "cut off" in lines(result.to_dict())[0]


def test_a_device_that_answers_no_more_ends_the_process_with_the_result_told(bench, monkeypatch):
    told = []

    def refuse():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    monkeypatch.setattr(bench.card, "release", refuse)
    with pytest.raises(Broken, match=r"illegal memory access was encountered$"):
        run(bench, TABLE, budget=100, began=time.monotonic(), tell=told.append)
    assert [result.number for result in told] == [0]


def test_the_file_is_whole_after_every_check(bench, tmp_path):
    path, seen = tmp_path / "results" / "gpu.json", []
    report = GpuReport(path, True, lambda _: None)
    report.begin({"card": "none"})
    report.begin({"card": "another process's word for it"})

    def tell(result):
        report.add(result.to_dict())
        seen.append(json.loads(path.read_text("utf-8")))

    run(bench, TABLE, budget=100, began=time.monotonic(), tell=tell)
    assert [len(report["checks"]) for report in seen] == [1, 2, 3, 4]
    assert seen[-1]["head"] == {"card": "none"}
    assert seen[-1]["checks"][1] | {"seconds": 0} == {
        "number": 1,
        "name": "odd",
        "status": "deviates",
        "values": [
            {"name": "good", "value": 1.0, "unit": "s", "expected": "at most 1", "ok": True},
            {"name": "odd", "value": 2.0, "unit": "s", "expected": "at most 1", "ok": False},
        ],
        "seconds": 0,
        "reason": "odd is 2 s, expected at most 1",
        "trace": "",
        "cut": False,
    }
    assert [p.name for p in path.parent.iterdir()] == ["gpu.json"]


def test_a_person_sees_a_star_where_a_value_is_odd(bench):
    rows = lines(attempt(TABLE[1], bench).to_dict())
    assert rows[0].split()[:3] == ["1", "odd", "deviates"]
    assert [row.split()[0] for row in rows[1:]] == ["good", "*"]
    assert "this device has no wings" in lines(attempt(TABLE[3], bench).to_dict())[0]


def test_only_odd_and_failed_checks_are_not_well():
    ok, off, failed, skipped = (Result(0, "", s).to_dict() for s in ("ok", "deviates", "failed", "skipped"))
    assert all_well([ok, skipped])
    assert not all_well([ok, off])
    assert not all_well([ok, failed])
    assert summary([ok, ok, skipped]) == "2 ok, 1 skipped"


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


REPORT = {
    "size": [512, 512],
    "plans": [
        {"memory": "fp8", "offload": 1, "micro_batch": 2, "estimated": False, "phases": {"update": {"device": 7}}},
        {"memory": "nf4", "offload": 0, "micro_batch": 2, "estimated": True, "phases": {"update": {"device": 8}}},
    ],
}


def test_counts_come_from_files_of_the_plan_command_one_or_several(tmp_path):
    one, several = tmp_path / "one.json", tmp_path / "several.json"
    one.write_text(json.dumps(REPORT))
    several.write_text(json.dumps([{**REPORT, "size": [256, 256]}, {**REPORT, "size": [512, 768]}]))
    known = Counts([one, several]).known
    assert known == {Case("fp8", 1.0, 512, 2): {"update": 7}, Case("fp8", 1.0, 256, 2): {"update": 7}}
    assert Counts([one]).of(Case("fp8", 1.0, 512, 2), None) == {"update": 7}


@pytest.mark.parametrize("text", ["{}", "[3]", "no", '{"size": [1, 1], "plans": [{}]}'])
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "plans.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"--plans .*plans.json: no counts of plans") as caught:
        Counts([path])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        Counts([tmp_path / "none.json"])


def test_counts_that_no_file_has_are_made_by_the_planner_once(bench, monkeypatch):
    case, asked = Case("fp8", 0.0, 64, 4), []
    counted = bench.counts.of(case, bench.config(case))
    assert counted["update"] > counted["decode"] > 0
    monkeypatch.setattr("trainer.benchmarks.gpu.counts.predict", lambda *_: asked.append(1))
    assert bench.counts.of(case, bench.config(case)) is counted
    assert not asked


def test_what_the_plan_command_says_is_what_is_read_here(bench, tmp_path):
    config = bench.config(Case("bf16", 0.0, 96, 2))
    peaks = {"load": Peak(5, 6), "update": Peak(7, 8)}
    estimate = Prediction(MemoryPlan("nf4"), peaks, estimated=True)
    smaller = Prediction(MemoryPlan("fp8", 1.0), peaks, micro_batch=1)
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(Report(config, (Prediction(MemoryPlan(), peaks), estimate, smaller)).to_dict()))
    counted = {"load": 5, "update": 7}
    assert Counts([path]).known == {Case("bf16", 0.0, 96, 2): counted, Case("fp8", 1.0, 96, 1): counted}


def test_a_model_that_does_not_fit_the_card_is_skipped_with_both_numbers(bench, monkeypatch):
    monkeypatch.setattr(Card, "free", lambda self: 2**30)
    bench.counts.known = {case: dict.fromkeys(LOADED, 2**24) for case, _ in cases(bench)}
    with pytest.raises(Skipped, match=r"bf16, 64 px, micro-batch 4 needs 1\.0 GiB, 1\.0 are free"):
        bench.full(Case("bf16", 0.0, 64, 4))
    result = attempt(CHECKS[4], bench)
    assert result.status == "ok"
    assert all("skipped: " in str(value) for value in result.values)
    assert attempt(CHECKS[3], bench).status == "skipped"


def test_the_same_plan_is_loaded_once_and_another_one_in_its_place(bench):
    first = bench.full(Case("bf16", 0.0, 64, 4))
    other = bench.full(Case("bf16", 0.0, 96, 1))
    assert first.policy is other.policy
    assert (other.geometry.width, other.micro_batch.size) == (96, 1)
    assert bench.full(Case("fp8", 0.0, 64, 4)).policy is not first.policy
    assert bench.loaded[0] == ("fp8", 0.0)


def test_the_clock_of_the_checks_reads_seconds_and_no_memory_on_the_cpu():
    clock = Watched(Card("cpu"))
    with clock.phase("rollout"):
        pass
    assert clock.seconds["rollout"] >= 0
    assert not clock.peaks
    with pytest.raises(Skipped, match="this device has no max_memory_allocated"):
        clock.card.peaks()


def test_another_process_that_dies_is_told_by_its_last_words(monkeypatch):
    script = "import os, sys; print('error:', os.environ['PYTORCH_CUDA_ALLOC_CONF'], file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(command, "WORKER", (sys.executable, "-c", script))
    with pytest.raises(RuntimeError, match=r"the other process ended with 2: error: backend:cudaMallocAsync"):
        in_another_process([], 10.0)((2, 4), {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"})


@pytest.mark.parametrize("number", [7, 9, 11, 13, 15])
def test_what_a_device_lacks_is_a_reason_to_skip(bench, number):
    result = check(number, bench)
    assert result.status == "skipped"
    assert "this device" in result.reason
