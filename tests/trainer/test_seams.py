"""Another family, objective, solver and reward: a file each beside this one, in whole trainings, with nothing changed.

A model family is a flow in the plane without a transformer (toy_family.py), so that all this takes a second.
"""

import json
from statistics import mean, variance

import pytest
from asked import Asked
from safetensors.torch import load_file

from trainer.__main__ import main
from trainer.errors import ConfigError
from trainer.settings.config_file import load_config
from trainer.store.reader import reading
from trainer.training.run import start_run

CONFIG = """
prompts = ["0.5 -1", "-1 0.5", "1 1"]
[model]
path = "anything"
family = "toy_family:ToyFlow"
device = "cpu"
[lora]
rank = 2
[sampling]
width = 16
height = 16
steps = 4
[grpo]
prompts_per_iteration = 3
group_size = 8
anchors = 4
trained_steps = 2
[optimizer]
learning_rate = 0.05
[run]
iterations = 60
[evaluation]
prompts = ["0 0"]
[[rewards]]
kind = "toy_reward:Green"
options = { most = 0.9 }
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(CONFIG, "utf-8")
    return path


def rewards(folder):
    with reading(folder) as store:
        return [value for _, value in store.curve("reward/toy_reward:Green")]


def rise(folder):
    """Of the reward's mean over the last twenty iterations above the first twenty, in its standard errors."""
    found = rewards(folder)
    first, last = found[:20], found[-20:]
    error = ((variance(first) + variance(last)) / 20) ** 0.5
    return (mean(last) - mean(first)) / error


@pytest.mark.parametrize("solver", ["dpm++2m", "toy_solver:Midpoint"])
@pytest.mark.parametrize("objective", ["neighbor", "toy_objective:Pull"])
def test_a_whole_training_of_ones_own_parts(config, tmp_path, capsys, solver, objective):
    sets = [f"sampling.solver={solver!r}", f"grpo.objective={objective!r}", f"run.folder={str(tmp_path / 'run')!r}"]
    assert main(["train", str(config), "--json", *[word for s in sets for word in ("--set", s)]]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "complete"
    assert rise(tmp_path / "run") > 3
    with reading(tmp_path / "run") as store:
        assert max(value for _, value in store.curve("ratio_error")) < 1
        assert store.done() == 60


def test_the_lora_is_exported_and_gone_on_from_bit_for_bit(config, tmp_path):
    def run(folder, stops=lambda: False, **options):
        return start_run(load_config(config, [f"run.folder={str(folder)!r}"]), control=Asked(stops), **options)

    whole, halved = tmp_path / "whole", tmp_path / "halved"
    run(whole)
    asked = iter([False] * 15 + [True])
    assert run(halved, lambda: next(asked))[0].kind == "stopped"
    assert run(halved, resume=True)[0].kind == "complete"
    one, two = (load_file(folder / "lora.safetensors") for folder in (whole, halved))
    assert (
        one.keys()
        == two.keys()
        == {f"transformer.centre.{part}" for part in ("lora_A.weight", "lora_B.weight", "alpha")}
    )
    assert all((one[name] == two[name]).all() for name in one)
    assert rewards(whole) == rewards(halved)


def test_a_run_of_ones_own_parts_is_sampled_if_they_are_named_again(config, tmp_path, capsys):
    run = tmp_path / "run"
    start_run(load_config(config, [f"run.folder={str(run)!r}", "run.iterations=20"]))
    words = ["sample", str(run), "--prompts", "1 1", "-o", str(tmp_path / "grid.png"), "--json"]
    assert main(words) == 2
    assert "its code would run" in capsys.readouterr().err
    repeated = [
        "--set",
        "model.family='toy_family:ToyFlow'",
        "--reward",
        "toy_reward:Green",
        "most=0.9",
        "--model",
        "anything",
    ]
    assert main([*words, *repeated]) == 0
    assert json.loads(capsys.readouterr().out)["rewards"]["toy_reward:Green"]["difference"] > 0
    assert (tmp_path / "grid.png").is_file()


def test_a_run_goes_on_with_its_own_objective_and_family_only(config, tmp_path):
    folder = f"run.folder={str(tmp_path / 'run')!r}"
    start_run(load_config(config, [folder, "run.iterations=1"]))
    with pytest.raises(Exception, match=r"grpo.objective was .*, is 'toy_objective:Pull'"):
        start_run(load_config(config, [folder, "grpo.objective='toy_objective:Pull'"]), resume=True)


@pytest.mark.parametrize("setting", ["model.family", "grpo.objective", "sampling.solver"])
def test_a_name_that_is_none_is_refused_with_the_names_there_are(config, setting):
    with pytest.raises(ConfigError, match=rf"{setting} = 'nothing': must be one of .*, or 'package.module:Class'"):
        load_config(config, [f"{setting}='nothing'"])


@pytest.mark.parametrize("setting", ["model.family", "grpo.objective", "sampling.solver"])
def test_a_class_that_is_not_there_is_refused_in_one_line(config, tmp_path, setting):
    with pytest.raises(ConfigError, match="there is no module nowhere"):
        start_run(load_config(config, [f"{setting}='nowhere:Class'", f"run.folder={str(tmp_path / 'run')!r}"]))
