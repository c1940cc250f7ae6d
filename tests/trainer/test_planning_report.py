"""`python -m trainer plan`: FLUX.1-dev counted without its weights, the table, the object, and configs it refuses."""

import json

import pytest

from trainer.__main__ import main
from trainer.cli.plan import FLUX_DEV
from trainer.models.files.source import ModelError
from trainer.models.storage.memory import MemoryPlan
from trainer.planning import models
from trainer.planning.advice import GIB
from trainer.planning.config import read_config
from trainer.planning.phases import PHASES, predict

LORA = 65_372_160  # parameters of rank 16 on all linear layers of FLUX.1's blocks
FLUX = 11_901_408_320
# the weights of its adaptive norms, which wait on the host: of 2 x 19, of 38 and of the last one
NORMS = (19 * 2 * 6 + 38 * 3 + 2) * 3072**2
DEV = "path = '/not/here/flux1-dev.safetensors'\ndevice = 'cuda'"


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    def write(model=DEV, extra="", rewards='[[rewards]]\nkind = "colourfulness"', **_):
        path = tmp_path_factory.mktemp("plan") / "config.toml"
        path.write_text(f'prompts = ["a cat"]\n[model]\n{model}\n{extra}\n{rewards}\n', "utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def full_size(write):
    return read_config(write(), ["run.micro_batch=1"])


def test_flux_dev_in_bf16_is_its_weights_the_lora_and_what_a_step_keeps(full_size):
    peaks = predict(full_size, MemoryPlan())
    assert tuple(peaks) == PHASES
    weights = 2 * (FLUX - NORMS) + 4 * LORA
    assert peaks["load"].device == pytest.approx(weights, rel=1e-3)
    # T5-XXL and CLIP-L
    assert peaks["encode"].device == pytest.approx(2 * (4_762_310_656 + 123_060_480), rel=0.05)
    # beside weights: two moments and gradients of the LoRA in float32, and the activations of one block
    activations = peaks["update"].device - weights - 3 * 4 * LORA
    assert 0.5 * GIB < activations < 1.2 * GIB
    assert peaks["rollout"].device < peaks["update"].device


def test_flux_dev_in_8_bits_with_offload_fits_a_card_of_8_gib_in_every_phase(full_size):
    peaks = predict(full_size, MemoryPlan("fp8", 1.0))
    assert all(peak.device < 7.5 * GIB for peak in peaks.values())
    assert 10.5 * GIB < peaks["update"].host < 12 * GIB  # the 8-bit weights wait there


def test_the_models_are_those_that_the_path_names(flux_schnell):
    dev, schnell = models.transformer("/not/here/flux1-dev.safetensors"), models.transformer("hub:x/FLUX.1-schnell")
    assert sum(p.numel() for p in dev.parameters()) == FLUX
    assert dev.config.guidance_embeds
    assert not schnell.config.guidance_embeds
    assert len(models.transformer(str(flux_schnell)).transformer_blocks) == 1
    assert "FLUX.1-schnell" in models.describe("hub:x/FLUX.1-schnell")


def test_a_file_that_is_no_flux_is_refused(tmp_path):
    path = tmp_path / "flux.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="whole safetensors file"):
        models.transformer(str(path))


def test_json_is_one_object_and_a_small_card_gets_advice(config_file, capsys):
    path = config_file(rewards='[[rewards]]\nkind = "tiny-clip"')
    assert main(["plan", str(path), "--json", "--vram", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in report["plans"]] == ["bf16", "fp8", "nf4 (estimate)", "fp8 + offload 1"]
    for p in report["plans"]:
        assert set(p["phases"]) == set(PHASES)
        assert p["device"] == max(peak["device"] for peak in p["phases"].values())
    assert report["fits"] is None
    assert "no plan fits" in report["advice"]
    assert "run.micro_batch = 2 (now 4)" in report["advice"]
    assert report["cost"]["rollout"] == 2 * 4 * 4


def test_the_table_has_a_row_a_plan_and_names_the_one_that_fits(config_file, capsys):
    assert main(["plan", str(config_file()), "--vram", "8", "--set", "model.offload=0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(" | ")[1:] == [*PHASES, "device", "host", "s |"]
    assert sum(line.startswith(("| fp8 + offload 0.5 |", "| fp8 + offload 1 |")) for line in lines) == 2
    assert any(line.endswith("by the roofline of a 4060") for line in lines)
    assert 'bf16, micro-batch 8, inputs kept is the fastest that fits (model.memory = "bf16"' in lines[-1]
    assert "run.rollout_batch = 8, model.keep_inputs = true)" in lines[-1]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [(["sampling.width=100"], "sampling.width"), (["model.path=3"], "model.path"), (["run.micro=1"], "micro")],
)
def test_a_wrong_setting_is_named_before_anything_is_counted(write, capsys, overrides, named):
    sets = [word for override in overrides for word in ("--set", override)]
    assert main(["plan", str(write()), *sets]) == 2
    assert named in capsys.readouterr().err


def test_without_a_file_it_is_the_table_of_the_readme(capsys):
    """FLUX.1-dev, HPSv2.1, rank 16 on all linear layers, G 12, B 1, all of 8 steps, 512 pixels."""
    config = read_config(FLUX_DEV)
    assert models.describe(config.model.path).startswith("FLUX.1-dev ")
    assert [reward.kind for reward in config.rewards] == ["hpsv2.1"]
    assert (config.lora.rank, config.lora.targets, config.run.offload_rewards) == (16, "all-linear", True)
    assert (config.sampling.width, config.sampling.height, config.sampling.steps) == (512, 512, 8)
    assert (config.grpo.group_size, config.grpo.anchors, config.trained_steps) == (12, 1, 8)
    assert main(["plan", "--vram", "0"]) == 2
    assert "vram = 0" in capsys.readouterr().err


def test_a_card_without_memory_is_refused(write, capsys):
    assert main(["plan", str(write()), "--vram", "0"]) == 2
    assert "vram = 0" in capsys.readouterr().err
