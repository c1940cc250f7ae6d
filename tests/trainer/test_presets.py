"""Presets, and what older versions' runs go on with: both are defaults below what a config says itself."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer.__main__ import main
from trainer.choices import CROSSED, STRATIFIED
from trainer.cli.bench import CONFIG
from trainer.engine.state import new_state
from trainer.errors import ConfigError
from trainer.events import IterationDone
from trainer.experiments.tasks import TASKS
from trainer.settings.config import SECTIONS
from trainer.settings.config_file import load_config, parse
from trainer.settings.described import described
from trainer.settings.presets import FORMER, PRESETS, Preset, as_now
from trainer.training.loop import train
from trainer.training.prepare import prepare
from trainer.training.run_folder import LORA

# the demo's first two iterations at the rate of then, as they were before there were presets
RECORDED = json.loads(Path(__file__).with_name("recorded").joinpath("paper.json").read_text("utf-8"))
NAMED = "group_size = 4\nprompts_per_iteration = 2"


def pairs(config) -> tuple[int, int, str]:
    return config.grpo.anchors, config.trained_steps, config.grpo.pairing


def test_the_papers_pairs_are_a_word_away(config_file):
    path = config_file(grpo="", sampling="width = 64\nheight = 64")
    assert pairs(load_config(path)) == (1, 8, STRATIFIED)
    assert pairs(load_config(path, ["preset=paper"])) == (4, 4, CROSSED)
    named = config_file(grpo="", sampling="", head="prompts = ['a']\npreset = 'paper'")
    assert pairs(load_config(named)) == (4, 4, CROSSED)


def test_what_the_file_and_the_command_line_say_counts_more_than_a_preset(config_file):
    path = config_file(grpo="anchors = 2", head="prompts = ['a']\npreset = 'paper'")
    config = load_config(path, ["grpo.pairing=stratified"])
    assert pairs(config) == (2, 4, STRATIFIED)
    assert config.model.text_tokens == 12  # the file's
    assert parse(json.loads(json.dumps(config.to_dict()))) == config


def test_a_preset_counts_more_than_what_an_older_run_had(config_file, monkeypatch):
    monkeypatch.setitem(PRESETS, "few", Preset("", {"grpo": {"anchors": 2}}))
    path = config_file(grpo="", sampling="width = 64\nheight = 64")
    assert pairs(load_config(path, ["preset=few"], FORMER)) == (2, 4, CROSSED)


@pytest.mark.parametrize("preset", ["'papers'", "3", "['paper']"])
def test_another_preset_is_refused(config_file, preset):
    with pytest.raises(ConfigError, match=r"preset = .*: must be one of defaults, paper"):
        load_config(config_file(), [f"preset={preset}"])


def test_a_preset_beside_a_section_that_is_none_is_refused_by_that(config_file):
    with pytest.raises(ConfigError, match="grpo = 3: must be a section"):
        load_config(config_file(), ["preset=paper", "grpo=3"])


@pytest.mark.parametrize("defaults", [FORMER, *(preset.defaults for preset in PRESETS.values())])
def test_presets_name_settings_in_their_ranges(defaults):
    for name, its in defaults.items():
        for key, value in its.items():
            described(SECTIONS[name], key).check(f"{name}.{key}", value)


def test_the_demo_with_the_papers_preset_begins_as_it_did_before_there_were_presets():
    overrides = [
        "preset=paper",
        "optimizer.learning_rate=1e-3",
        f"prompts={list(TASKS['emoji'].trained)!r}",
        "run.iterations=2",
    ]
    setup, events = prepare(load_config(CONFIG, overrides)), []
    train(setup, new_state(setup), on_event=events.append, save=lambda _: None)
    done = [event for event in events if isinstance(event, IterationDone)]
    for event, metrics, anchors in zip(done, RECORDED["metrics"], RECORDED["anchors"], strict=True):
        assert [row.nonzero().flatten().tolist() for row in event.anchors] == anchors
        assert {name: event.metrics[name] for name in metrics} == pytest.approx(metrics, rel=1e-3, abs=1e-6)
    for name, norm in RECORDED["lora"].items():
        assert setup.lora[name].norm().item() == pytest.approx(norm, rel=1e-3), name


def age(state: Path) -> None:
    """As a version wrote it that knew one pairing, and no digests."""
    stored = json.loads(state.read_text("utf-8"))
    del stored["settings"]["grpo"]["pairing"], stored["digest"], stored["format"]
    state.write_text(json.dumps(stored), "utf-8")


def test_a_run_of_an_older_version_goes_on_with_the_pairs_that_it_began_with_bit_for_bit(config_file, tmp_path, capsys):
    """Its config named neither anchors nor steps: what it left open is what it was."""
    path, saved = str(config_file(grpo=NAMED)), ["--set", "run.save_every=1"]
    begun = ["--set", "grpo.anchors=4", "--set", "grpo.trained_steps=4", "--set", "grpo.pairing=crossed"]
    whole = ["--set", f"run.folder={str(tmp_path / 'whole')!r}"]
    assert main(["train", path, *saved, *begun, *whole]) == 0
    assert main(["train", path, *saved, *begun, "--set", "run.iterations=2"]) == 0
    assert main(["train", path, *saved, "--resume"]) == 2
    assert "grpo.anchors was 4, is 1" in capsys.readouterr().err
    for state in (tmp_path / "run" / "checkpoint").glob("*/state.json"):
        age(state)
    assert main(["train", path, *saved, "--resume"]) == 0
    resumed, expected = (load_file(tmp_path / name / LORA) for name in ("run", "whole"))
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("stored", "tokens"),
    [
        ({"model": {"text_tokens": "auto"}, "grpo": {"anchors": 2}}, "reference"),  # what "auto" was
        ({"model": {}}, "reference"),
        ({"model": {"text_tokens": 77}}, 77),
        ({"model": {"text_tokens": "auto"}, "grpo": {"pairing": STRATIFIED}}, "auto"),
    ],
)
def test_what_an_older_version_meant_by_auto_stays(stored, tokens):
    before = json.dumps(stored)
    assert as_now(stored)["model"]["text_tokens"] == tokens
    assert json.dumps(stored) == before


def test_a_run_of_an_older_version_is_held_to_what_its_config_says_now(config_file, tmp_path, capsys):
    path = str(config_file(grpo=f"{NAMED}\nanchors = 3\ntrained_steps = 4\npairing = 'crossed'"))
    assert main(["train", path, "--set", "run.iterations=1"]) == 0
    for state in (tmp_path / "run" / "checkpoint").glob("*/state.json"):
        age(state)
    assert main(["train", path, "--resume", "--set", "grpo.pairing=stratified", "--set", "grpo.anchors=2"]) == 2
    told = capsys.readouterr().err
    assert "grpo.pairing was 'crossed', is 'stratified'" in told
    assert "grpo.anchors was 3, is 2" in told
