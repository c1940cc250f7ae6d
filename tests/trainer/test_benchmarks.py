"""`python -m trainer bench`: what iterations cost, on the small random FLUX."""

import json
import math
import os

import pytest
import torch

from trainer.__main__ import main
from trainer.benchmarks import iteration, memory, scaling
from trainer.cli import bench
from trainer.experiments.bench import Bench
from trainer.experiments.tasks import Task

PARTS = ("G", "P", "T", "K", "B", "pixels")


@pytest.fixture
def small(config_file) -> Bench:
    path = config_file(grpo="", sampling="")
    return Bench(Task("small", path, tested=("a blue bird",)))


def setup_of(small: Bench, name: str, *overrides: str):
    return small.setup(small.task.config([*iteration.METHODS[name], *overrides]))


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        # G T of the rollout; forward and backward of each pair, and the reference's for a held step
        ("defaults", (), 12 * 8 + 2 * 8),
        ("defaults", ("grpo.kl_weight=0.1",), 12 * 8 + 3 * 8),
        ("defaults", ("grpo.prompts_per_iteration=2", "grpo.updates_per_rollout=3"), 2 * (12 * 8 + 3 * 2 * 8)),
        ("defaults", ("sampling.solver='heun'",), 12 * 15 + 2 * 8),
        ("paper", (), 12 * 8 + 2 * 4 * 4),
        ("composition", ("grpo.prompts_per_iteration=1",), 12 * 4 + 2 * 4 + 3 * 4),
        ("Flow-GRPO", (), 12 * 10 + 2 * 9 * 12),  # either update has half of the candidates
        ("DanceGRPO, 14 of 25 steps", (), 12 * 25 + 2 * 14 * 12),
    ],
)
def test_passes_are_those_that_an_iteration_makes(small, name, overrides, expected, monkeypatch):
    setup = setup_of(small, name, "run.micro_batch=12", *overrides)
    assert iteration.passes_of(setup) == expected


def test_methods_take_turns_and_are_compared_within_a_round(small, monkeypatch):
    order = []

    def one(setup):
        order.append(setup.config.grpo.objective)
        return {"neighbor": 2.0}.get(setup.config.grpo.objective, 5.0) * (1 + len(order) // len(iteration.METHODS))

    monkeypatch.setattr(iteration, "one", one)
    rows = iteration.measure(small, 3)
    assert order == order[: len(iteration.METHODS)] * 4
    assert [row["method"] for row in rows] == list(iteration.METHODS)
    assert {row["method"]: row["ratio"] for row in rows}["Flow-GRPO"] == pytest.approx(2.5)
    assert all(row["lowest_ratio"] == pytest.approx(row["highest_ratio"]) for row in rows[:-1])
    assert "| Flow-GRPO |" in iteration.table(rows)


def test_an_exponent_is_a_power_laws():
    assert scaling.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert scaling.exponent([2, 4, 8], [5, 5, 5]) == pytest.approx(0)
    assert math.isnan(scaling.exponent([1, 2], [0, 4]))


def test_each_axis_changes_what_it_names(small):
    start = small.task.config(scaling.START)
    changed = {
        "G": lambda c: c.grpo.group_size,
        "P": lambda c: c.grpo.prompts_per_iteration,
        "T": lambda c: c.sampling.steps,
        "K": lambda c: c.trained_steps,
        "B": lambda c: c.grpo.anchors,
        "pixels": lambda c: c.sampling.width * c.sampling.height,
    }
    for name, values in scaling.AXES.items():
        read = changed.pop(name.split(",")[0])
        for value, overrides in values.items():
            config = small.task.config([*scaling.START, *overrides])
            assert read(config) == value
            others = [other(config) == other(start) for other in changed.values()]
            assert all(others)
    assert changed == {}


@pytest.mark.parametrize("name", ["iteration", "scaling"])
def test_the_command_measures(name, config_file, monkeypatch, capsys):
    monkeypatch.setattr(bench, "each_by_itself", lambda arguments: lambda overrides: '{"iteration_mib": 1.0}')
    monkeypatch.setattr(iteration, "METHODS", dict(list(iteration.METHODS.items())[:2]))
    monkeypatch.setattr(scaling, "AXES", dict(list(scaling.AXES.items())[1:2]))
    path = str(config_file(grpo="", sampling=""))
    assert main(["bench", name, "--config", path, "--iterations", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(s > 0 for row in rows for s in (row["seconds"] if name == "scaling" else [row["seconds"]]))


def test_all_of_them_are_measured_by_one_word(monkeypatch, capsys):
    told = []

    class Measured:
        @staticmethod
        def measure(*given):
            told.append(given)
            return {"given": len(given)}

        @staticmethod
        def table(result):
            return f"a table of {result['given']}"

    monkeypatch.setattr(bench, "import_module", lambda name, package: Measured)
    monkeypatch.setattr(bench, "bench_of", lambda arguments: "the model")
    assert main(["bench", "--quick"]) == 0
    out = capsys.readouterr().out
    assert [name for name in bench.SET if f"{name}\n\na table of " in out] == list(bench.SET)
    assert told[bench.SET.index("history")] == (1000, 2)


def test_the_server_is_measured_beside_the_reward_itself(capsys):
    assert main(["bench", "server", "--iterations", "1", "--batch", "2", "--edge", "64", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["server_seconds"] > 0
    assert result["local_seconds"] > 0
    assert (result["batch"], result["edge"], result["pairs"]) == (2, 64, 1)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system lets no peak be reset")
def test_a_peak_counts_from_now_on_once_it_is_forgotten():
    before, size = memory._forget_peak(), 200 * memory.MIB
    assert torch.ones(size // 4).sum() > 0
    high = memory._peak_resident()
    assert high - before > 0.9 * size
    memory._forget_peak()
    assert memory._peak_resident() < high - 0.9 * size
