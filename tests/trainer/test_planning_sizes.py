"""What a plan counts of sizes and pictures to begin from, and when it tries a smaller micro-batch."""

import json
from dataclasses import replace

from PIL import Image

from trainer.__main__ import main
from trainer.models.storage.memory import MemoryPlan
from trainer.planning.advice import GIB, RESERVE
from trainer.planning.config import read_config
from trainer.planning.phases import PHASES, Peak, predict
from trainer.planning.predictions import Prediction
from trainer.planning.report import Report


def test_the_largest_of_several_sizes_is_counted(config_file):
    several = read_config(config_file(), ["sampling.sizes=[[64, 64], [128, 256], [128, 128]]"])
    large = read_config(config_file(), ["sampling.width=128", "sampling.height=256"])
    assert predict(several, MemoryPlan())["update"].device == predict(large, MemoryPlan())["update"].device
    assert "128 x 256" in Report(several, ()).notes[0]


def test_fill_is_counted_with_its_picture_and_its_mask(config_file, flux_dev, flux_fill, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    init = "image = 'picture.png'\nmask = 'picture.png'"
    peaks, plain = (
        predict(read_config(config_file(model=f"path = {str(path)!r}\ntext_tokens = 12", init=init)), MemoryPlan())
        for path in (flux_fill, flux_dev)
    )
    assert peaks["rollout"].device > plain["rollout"].device


def test_a_smaller_micro_batch_goes_before_a_slower_plan(config_file, capsys):
    large = ["sampling.width=256", "sampling.height=256"]
    peaks = [predict(read_config(config_file(), [*large, f"run.micro_batch={n}"]), MemoryPlan()) for n in (2, 4)]
    two, four = (max(peak.device for peak in phases.values()) / GIB + RESERVE for phases in peaks)
    sets = [word for override in large for word in ("--set", override)]
    assert main(["plan", str(config_file()), "--json", "--vram", str((two + four) / 2), *sets]) == 0
    report = json.loads(capsys.readouterr().out)
    sizes = {p["name"]: p["micro_batch"] for p in report["plans"]}
    assert list(sizes)[:2] == ["bf16", "bf16, micro-batch 2"]
    assert (sizes["bf16"], sizes["bf16, micro-batch 2"]) == (4, 2)
    assert "bf16, micro-batch 1" not in sizes
    assert report["fits"] == "bf16, micro-batch 2, inputs kept"
    assert report["advice"].endswith("run.micro_batch = 2, run.rollout_batch = 8, model.keep_inputs = true)")


def test_the_part_inside_a_mask_is_counted_as_the_copy_it_is(config_file, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    masked, whole = (
        predict(read_config(config_file(init=f"image = 'picture.png'{mask}")), MemoryPlan())
        for mask in ("\nmask = 'picture.png'", "")
    )
    assert masked["update"].device > whole["update"].device


def test_an_estimate_is_shown_and_never_advised(config_file):
    config = read_config(config_file())
    counted = Prediction(MemoryPlan("fp8"), dict.fromkeys(PHASES, Peak(20 * GIB, 0)))
    estimated = Prediction(MemoryPlan("nf4"), dict.fromkeys(PHASES, Peak(8 * GIB, 0)), estimated=True)
    report = Report(config, (counted, estimated), vram=16)
    assert report.chosen is None
    assert "no plan fits, the smallest needs 21.0 GiB" in report.verdict
    assert replace(report, vram=24).chosen is counted
