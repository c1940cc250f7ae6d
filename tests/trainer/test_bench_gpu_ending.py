"""`bench gpu`, checks 10, 14 and 15: runs that are stopped and go on, and another allocator."""

from types import SimpleNamespace

import pytest
import torch
from small_bench import around, bench_of, check, odd, well

from trainer.benchmarks.gpu import ending
from trainer.benchmarks.gpu.results import Result, Value
from trainer.models.flux1.policy import FluxPolicy


@pytest.fixture
def bench(flux_dev):
    return bench_of(flux_dev)


# ---- 10, cancel


def test_a_stopped_run_is_untouched(bench):
    well(result := check(10, bench))
    assert {v.name for v in result.values if v.unit == "s"} == {"in rollout", "in decode", "in update"}


def test_a_stop_that_changes_the_lora_is_noticed(bench, monkeypatch):
    def touched(original, setup, *_):
        reason = original()
        with torch.no_grad():
            next(iter(setup.lora.values())).add_(1e-6)
        return reason

    around(monkeypatch, ending, "train", touched)
    assert odd(check(10, bench)) == {f"in {phase}: LoRA and optimiser" for phase in ending.SECONDS}


def test_a_wish_that_nobody_hears_is_noticed(bench, monkeypatch):
    """The calls of the update do not ask any more."""

    def deaf(original, policy, *_):
        velocity, ask = original(), policy.before_call

        def evaluate(*args):
            policy.before_call = (lambda: None) if torch.is_grad_enabled() else ask
            return velocity(*args)

        return evaluate

    monkeypatch.setattr(ending, "moments", lambda setup: {"update": 8})
    around(monkeypatch, FluxPolicy, "velocity", deaf)
    assert "in update: it ends as" in odd(check(10, bench))


# ---- 14, resume


def test_a_run_that_goes_on_ends_the_same(bench):
    well(check(14, bench))


def test_an_optimiser_that_forgets_is_noticed(bench, monkeypatch):
    monkeypatch.setattr("trainer.training.run.restore_optimizer", lambda *_: None)
    assert odd(check(14, bench)) == {"tensors of the LoRA that differ"}


def test_a_run_that_learns_nothing_is_noticed(bench, monkeypatch):
    monkeypatch.setattr("trainer.stages.update.warmed_up", lambda *_: 0.0)
    monkeypatch.setattr("trainer.engine.grpo.warmed_up", lambda *_: 0.0)
    assert odd(check(14, bench)) == {"the LoRA has learnt"}


# ---- 15, another allocator


@pytest.fixture
def allocators(bench):
    bench.card.module = SimpleNamespace(get_allocator_backend=lambda: "native")
    bench.results[4] = Result(4, "plan", "ok", [Value("bf16: update peak", 20.0, "GiB")])

    def run(races, peak):
        def again(numbers, environment):
            assert environment == {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
            found = {2: Result(2, "offload", *races), 4: Result(4, "plan", "ok", [Value("bf16: update peak", peak)])}
            return [found[n].to_dict() for n in numbers]

        bench.again = again
        bench.card.release = lambda: None
        return check(15, bench)

    return run


def test_another_allocator_gives_the_same(allocators):
    well(result := allocators(["ok"], 20.3))
    assert [v.name for v in result.values] == ["check 2", "check 4", "bf16: update peak"]


def test_a_race_or_another_peak_under_another_allocator_is_noticed(allocators):
    assert odd(allocators(["deviates", [], 0.0, "passes with another velocity is 1"], 20.0)) == {"check 2"}
    assert odd(allocators(["ok"], 20.5)) == {"bf16: update peak"}
