"""Which plan is the fastest that fits a card, by its roofline; and `bench roofline`."""

import json
from collections import Counter

import pytest

from trainer.__main__ import main
from trainer.cli.bench import CONFIG
from trainer.models.storage.memory import MemoryPlan
from trainer.planning.advice import GIB, RESERVE
from trainer.planning.cards import card_named
from trainer.planning.config import read_config
from trainer.planning.kernels import CAST, ELEMENTWISE, KINDS, Kernel
from trainer.planning.phases import PHASES, ROLLOUT, Peak, Planned
from trainer.planning.predictions import Prediction, predictions
from trainer.planning.report import Report, plan

CARD = card_named("4090")
WIDE = ["sampling.width=256", "sampling.height=256"]


def prediction(name: str, gib: float, moved: int, **options) -> Prediction:
    """Of a run that moves so many GB an iteration."""
    work = {"update": Counter({Kernel(ELEMENTWISE, 2, 0, 10**9): moved})}
    return Prediction(MemoryPlan(name), dict.fromkeys(PHASES, Peak(round(gib * GIB), 0)), work=work, **options)


def on_device(peaks: dict[str, Peak]) -> dict[str, int]:
    return {name: peak.device for name, peak in peaks.items()}


@pytest.mark.parametrize(
    ("vram", "fits"),
    [(30, "bf16, micro-batch 2"), (22, "fp8"), (14, "fp8, micro-batch 2"), (10, None)],
)
def test_the_fastest_that_fits_is_chosen_and_not_the_first(config_file, vram, fits):
    plans = (
        prediction("bf16", 28, 1000),
        prediction("bf16", 24, 900, micro_batch=2),
        prediction("fp8", 20, 2000),
        prediction("fp8", 20.5, 1990, micro_batch=8),  # faster by less than 1 %
        prediction("fp8", 12, 3000, micro_batch=2),
        Prediction(MemoryPlan("nf4"), dict.fromkeys(PHASES, Peak(8 * GIB, 0)), estimated=True),
    )
    report = Report(read_config(config_file()), plans, vram, CARD)
    assert report.to_dict()["fits"] == fits
    assert (fits is None) == ("no plan fits" in report.verdict)


def test_a_plan_counts_the_same_after_another_micro_batch(config_file):
    config = read_config(config_file(), WIDE)
    together, alone = Planned(config, MemoryPlan("fp8")), Planned(config, MemoryPlan("fp8"))
    together.measure(4, 8)
    found, expected = together.measure(2, 3), alone.measure(2, 3)
    assert on_device(found.peaks) == on_device(expected.peaks)
    assert found.work == expected.work


def test_calls_count_as_often_as_a_rollout_of_that_size_makes_them(config_file):
    """8 candidates and 4 steps: a short last batch counts as a whole one."""
    planned = Planned(read_config(config_file()), MemoryPlan())
    for size, parts in ((8, 1), (3, 3), (1, 8)):
        work = planned.measure(2, size).work
        products, of_one = (sum(n * k.flop for k, n in work[name].items()) for name in ("rollout", "forward"))
        assert products / of_one == pytest.approx(4 * parts, rel=0.01)


def test_of_the_rollout_as_many_at_once_are_counted_as_fit():
    large = ["sampling.width=512", "sampling.height=512", "run.micro_batch=1", "grpo.group_size=24"]
    config = read_config(CONFIG, ["prompts=['a cat']", *large])
    peaks = on_device(Planned(config, MemoryPlan()).measure(1, 96).peaks)
    others = max(peak for phase, peak in peaks.items() if phase != ROLLOUT)
    assert peaks[ROLLOUT] > others
    room = (peaks[ROLLOUT] + others) / 2
    found = next(predictions(config, room / GIB + RESERVE, None, lambda _: None))
    assert (found.rollout_batch, found.device <= room) == (48, True)


def test_the_loras_rounding_counts_once_an_iteration(config_file):
    planned = Planned(read_config(config_file(), WIDE), MemoryPlan())
    for _ in range(2):
        work = planned.measure(2, 3).work
        casts = sum(times for kernel, times in work["step"].items() if kernel.kind == CAST)
        assert casts == len(planned.setup.lora)


def test_without_a_name_it_is_the_card_whose_memory_is_nearest_and_that_is_said(config_file):
    report = plan(read_config(config_file()), 30)
    assert report.card == card_named("5090")
    assert any(note.endswith("by the roofline of a 5090") for note in report.notes)
    of_bf16 = [p for p in report.predictions if p.plan == MemoryPlan() and not p.keeps]
    assert [p.micro_batch for p in of_bf16][:2] == [None, 8]  # a larger one is tried, where all of it fits
    faster = [p.seconds(report.card) for p in of_bf16]
    assert faster[:-1] == sorted(faster[:-1], reverse=True)  # until it gains nothing
    assert report.chosen.rollout_batch == 8
    assert "run.rollout_batch = 8" in report.verdict
    assert "micro-batch 4 (as many as fit in the rollout)" in report.notes[0]
    assert "micro-batch 4 (4 in the rollout)" in Report(report.config, report.predictions).notes[0]


def test_what_fits_is_counted_with_inputs_kept_too_unless_the_settings_decide(config_file):
    wide = [*WIDE, "run.micro_batch=8", "run.rollout_batch=8"]
    left = plan(read_config(config_file(), wide), 30)
    kept = [p for p in left.predictions if p.keeps]
    assert [p.name for p in kept] == ["bf16, inputs kept", "fp8, inputs kept", "fp8 + offload 1, inputs kept"]
    asked = plan(read_config(config_file(), [*wide, "model.keep_inputs=true"]), 30)
    for found, expected in zip(kept, (p for p in asked.predictions if not p.estimated), strict=True):
        assert on_device(found.peaks) == on_device(expected.peaks)
        assert found.work == expected.work
    assert all(found["keep_inputs"] for found in asked.to_dict()["plans"])
    assert left.chosen == kept[0]
    assert left.verdict.endswith("model.keep_inputs = true)")
    assert kept[0].peaks["update"].device > left.predictions[0].peaks["update"].device
    for refused in ("model.keep_inputs=false", "model.checkpointing=false"):
        assert not any(p.keeps for p in plan(read_config(config_file(), [*wide, refused]), 30).predictions)
    assert not any(p.keeps for p in plan(read_config(config_file(), wide), 1).predictions)  # where nothing fits


def test_a_card_brings_its_memory_and_a_measured_one_its_rates(config_file, capsys):
    assert main(["plan", str(config_file()), "--json", "--measured", "docs/gpu/h200.json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["vram"] == 139.8
    assert report["card"]["name"] == "NVIDIA H200, measured"
    assert [bool(p["seconds"]) for p in report["plans"]] == [not p["estimated"] for p in report["plans"]]


def test_bench_roofline_counts_a_forward_pass_an_update_and_an_iteration_for_each_card(config_file, capsys):
    words = ["bench", "roofline", "--config", str(config_file()), "--card", "4090", "--card", "3060"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in found["plans"]] == ["bf16", "fp8", "fp8 + offload 1"]
    bf16, _, offloaded = (p["parts"] for p in found["plans"])
    assert list(bf16) == ["forward of 4", "update of 4", "iteration"]
    for part in bf16.values():
        total = part.pop("all")
        assert set(part) <= set(KINDS)
        for count in ("kernels", "flop", "bytes"):
            assert total[count] == sum(kind[count] for kind in part.values())
        assert total["seconds"]["3060"] > total["seconds"]["4090"] > 0
    weights = offloaded["forward of 4"]["fetched"]["bytes"]
    assert offloaded["update of 4"]["fetched"]["bytes"] > 2 * weights > 0  # once for each of the two passes, at least
    assert "fetched" not in bf16["forward of 4"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("| 4090, s | 3060, s |")
    assert sum(line.startswith("| **") for line in lines) == 9
