"""`bench gpu`, the harness: what a check says is its result, whatever happens in it, and it is on disk at once."""

import json
import math
import time

import pytest
from small_bench import bench_of, check

from trainer.benchmarks.gpu.card import Card, Watched
from trainer.benchmarks.gpu.counts import LOADED, Case
from trainer.benchmarks.gpu.harness import Check, attempt, run
from trainer.benchmarks.gpu.memory import cases
from trainer.benchmarks.gpu.report import Report as GpuReport
from trainer.benchmarks.gpu.report import all_well, lines, summary
from trainer.benchmarks.gpu.results import Broken, Result, Skipped, Value
from trainer.benchmarks.gpu.table import CHECKS


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


@pytest.mark.parametrize("number", [7, 9, 11, 13, 15])
def test_what_a_device_lacks_is_a_reason_to_skip(bench, number):
    result = check(number, bench)
    assert result.status == "skipped"
    assert "this device" in result.reason
