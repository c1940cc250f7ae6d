"""`bench gpu`, what the planner counts: read from files of the plan command, or counted here once."""

import json

import pytest
from small_bench import bench_of

from trainer.benchmarks.gpu.counts import Case, Counts
from trainer.errors import ConfigError
from trainer.models.storage.memory import MemoryPlan
from trainer.planning.phases import Peak
from trainer.planning.predictions import Prediction
from trainer.planning.report import Report


@pytest.fixture
def bench(flux_dev):
    return bench_of(flux_dev)


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
    several.write_text(json.dumps([{**REPORT, "size": [256, 256]}, {**REPORT, "size": [768, 512]}]))
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
    drawn = Prediction(MemoryPlan("fp8"), peaks, rollout_batch=12)  # more at once than here
    kept = Prediction(MemoryPlan("fp8"), peaks, keeps=True)
    path = tmp_path / "plans.json"
    path.write_text(
        json.dumps(Report(config, (Prediction(MemoryPlan(), peaks), estimate, smaller, drawn, kept)).to_dict())
    )
    counted = {"load": 5, "update": 7}
    assert Counts([path]).known == {Case("bf16", 0.0, 96, 2): counted, Case("fp8", 1.0, 96, 1): counted}
