"""What a user can get wrong on the command line, in a config or in a path is answered before torch is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trainer.__main__ import COMMANDS
from trainer.rewards import KINDS, RewardError, build, check_weights, weights
from trainer.settings.config_file import load_config
from trainer.training.checkpoint import Checkpoint, save

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "diffusers", "transformers", "peft", "bitsandbytes"]

# runs commands one after the other in one process: what one of them imports, it and all that follow have
CALLER = f"""
import contextlib, io, json, sys
from trainer.__main__ import main
for argv in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(argv)
        except SystemExit as left:
            code = left.code
    heavy = [name for name in {HEAVY} if name in sys.modules]
    print(json.dumps({{"code": code, "out": out.getvalue(), "err": err.getvalue(), "heavy": heavy}}), flush=True)
"""

TRAIN = {  # --set -> the answer
    "grpo.anchor=3": "'anchor' is no key of [grpo]: did you mean 'anchors'?",
    "grop.anchors=3": "'grop' is no section: did you mean 'grpo'?",
    "anchors": "--set = 'anchors': must be section.key=value",
    "run.iterations='many'": "run.iterations = 'many': must be a whole number",
    "grpo.group_size=1": "grpo.group_size = 1: must be at least 2",
    "grpo.temperature_mode='hot'": "must be one of scale-free, element-mean, raw",
    "grpo.reward_normalisation='none'": "must be one of advantage, raw",
    "sampling.solver='dpm'": "must be one of euler, dpm++2m, ab2, heun",
    "sampling.width=100": "sampling.width must be a multiple of 16 pixels, got 100: try 96",
    "run.stop_on=['boredom']": "must be one of reward-hacking, trust-region",
    "model.path='nowhere'": "no diffusers folder there",
    "model.path='nowhere.safetensors'": "no diffusers folder there",
    "model.path='damaged.safetensors'": "is not a whole safetensors file",
    "model.path='whole.safetensors'": "model.vae is not set",
    "model.vae='gone.safetensors'": "model.vae = 'gone.safetensors': there is no file or folder",
    "model.text_encoders=['gone.safetensors']": "model.text_encoders = 'gone.safetensors': there is no file",
    "lora.start='gone.safetensors'": "lora.start = 'gone.safetensors': there is no file",
    "init.image=['gone.png']": "init.image = 'gone.png': there is no file",
    "init={image = 'wide.png', mask = 'square.png'}": "save both in one size",
    "prompts='gone.txt'": "gone.txt: cannot be read (No such file",
    "rewards=[{kind = 'clop'}]": "'clop' is no reward kind: did you mean 'clip'?",
    "rewards=[{kind = 'clip', options = {path = 'gone'}}]": "options.path = 'gone': there is no file or folder",
    "rewards=[{kind = 'remote'}]": "rewards.0.options.url = None: the reward 'remote' needs it",
    "rewards=[{kind = 'pickscore'}]": "pickscore: PickScore_v1 is missing",
    "rewards=[{kind = 'ocr'}]": "has no text in double quotes to look for",
}
OTHERS = [
    (["train", "gone.toml"], "gone.toml: cannot be read (No such file or directory)"),
    (["train", "wide.png"], "wide.png: cannot be read (it has zero bytes, so it is no text"),
    (["train", "begun.toml"], "already holds a run of 7 iterations: use --resume, or another folder"),
    (["train", "begun.toml", "--resume", "--set", "grpo.clip=0.3"], "(grpo.clip was 0.2, is 0.3): undo them"),
    (["train", "broken.toml", "--resume"], "can be read (broken/checkpoint/000003 is damaged ('Unterminated string"),
    (["sample", "gone", "--prompts", "a"], "gone: no such file; give a run's folder"),
    (["sample", "foreign.safetensors", "--prompts", "a"], "not exported by a run of this project"),
    (["sample", "damaged.safetensors", "--prompts", "a"], "is not a whole safetensors file"),
    (["sample", "moved.safetensors", "--prompts", "a"], "--model /gone (would be read)"),
    (["sample", "moved.safetensors", "--prompts", "a", "--model", "nowhere"], "no diffusers folder there"),
    (["sample", "moved.safetensors", "--prompts", "a", "-o", "grid"], "--output = 'grid': must be a picture"),
    (["plan", "gone.toml"], "gone.toml: cannot be read"),
    (["plan", "--vram", "0"], "vram = 0: must be the card's memory in GiB"),
    (["plan", "--card", "1080"], "--card 1080: must be one of 4060, 3060, "),
    (["plan", "--measured", "gone.json"], "--measured gone.json: cannot be read (No such file"),
    (["plan", "--measured", "config.toml"], "config.toml: no rates of a card, as made by: python -m trainer bench gpu"),
    (["bench", "roofline", "--card", "1080"], "--card 1080: must be one of 4060, 3060, "),
    (["plan", "--set", "grpo.anchors=99"], "grpo.anchors = 99: must be between 1 and"),
    (["demo", "--set", "grpo.strength=2"], "grpo.strength = 2.0: must be above 0"),
    (["demo", "--folder", "begun"], "already holds a run of 7 iterations"),
    *((["bench", name, "--set", "grpo.clip=0"], "grpo.clip = 0") for name in ("init", "memory", "overhead", "storage")),
    (["bench", "reward", "--clip", "gone"], "--clip gone: there is no such file or folder"),
    (["board", "gone"], "gone is no folder"),
    (["export", "gone"], "gone is no run"),
    (["reward-server", "--config", "gone.toml"], "gone.toml: cannot be read"),
    (["reward-server", "--config", "rewards.toml", "--token-file", "gone"], "--token-file gone: cannot be read"),
]
USAGE = [
    ([], "the following arguments are required: COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["train"], "the following arguments are required: CONFIG.toml"),
    (["train", "config.toml", "--fast"], "unrecognized arguments: --fast"),
    (["sample", "gone"], "the following arguments are required: --prompts"),
    (["plan", "--vram", "much"], "invalid float value: 'much'"),
    (
        ["sample", "gone", "--prompts", "a", "--seeds", "-1"],
        "'-1' must be a whole number from 0 to 18446744073709551615",
    ),
    (
        ["sample", "gone", "--prompts", "a", "--seeds", str(2**64)],
        "must be a whole number from 0 to 18446744073709551615",
    ),
    (
        ["sample", "gone", "--prompts", "a", "--seeds", "9" * 5000],
        "must be a whole number from 0 to 18446744073709551615",
    ),
    (["plan", "--vram", "much" * 5000], "invalid float value: 'muchmuch"),
    (["bench", "everything"], "invalid choice: 'everything'"),
]
MISTAKES = [*((["train", "config.toml", "--set", text], answer) for text, answer in TRAIN.items()), *OTHERS]
HELP = [["--help"], *([name, "--help"] for name in COMMANDS)]


def write_files(folder: Path) -> None:
    def config(name: str, run: str) -> Path:
        path = folder / f"{name}.toml"
        model = '[model]\npath = "embedded"\ndevice = "cpu"'
        rewards = '[[rewards]]\nkind = "colourfulness"'
        path.write_text(
            f'prompts = ["a red apple"]\n{model}\n[run]\nfolder = "{run}"\niterations = 1\n{rewards}\n', "utf-8"
        )
        return path

    config("config", "unused")
    begun = load_config(config("begun", "begun")).to_dict()
    save(folder / "begun/checkpoint", Checkpoint(7, {}, {}, {}, counters={}, settings=begun))
    config("broken", "broken")
    (folder / "broken/checkpoint/000003").mkdir(parents=True)
    (folder / "broken/checkpoint/000003/state.json").write_text('{"iter')
    (folder / "rewards.toml").write_text('[[rewards]]\nkind = "colourfulness"\n')
    (folder / "damaged.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, folder / "whole.safetensors")
    save_file({"a": torch.zeros(1)}, folder / "foreign.safetensors")
    moved = {**begun, "model": {**begun["model"], "path": "/gone"}}
    metadata = {"settings": json.dumps(moved), "rewards": json.dumps(moved.pop("rewards"))}
    save_file({"a": torch.zeros(1)}, folder / "moved.safetensors", metadata)
    Image.new("RGB", (32, 16)).save(folder / "wide.png")
    Image.new("L", (16, 16)).save(folder / "square.png")


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[tuple[str, ...], dict[str, Any]]:
    """Of each of the commands."""
    folder = tmp_path_factory.mktemp("mistakes")
    write_files(folder)
    before = sorted(folder.rglob("*"))
    commands = [*(words for words, _ in [*MISTAKES, *USAGE]), *HELP]
    caller, environment = [sys.executable, "-c", CALLER], {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    called = subprocess.run(
        caller, input=json.dumps(commands), cwd=folder, env=environment, capture_output=True, text=True
    )
    assert called.returncode == 0, called.stderr
    assert sorted(folder.rglob("*")) == before  # nothing was written
    return dict(zip(map(tuple, commands), map(json.loads, called.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_before_torch(answers, words, message):
    answer = answers[tuple(words)]
    assert message in answer["err"]
    assert answer["err"].startswith("error: ")
    assert answer["err"].count("\n") == 1
    assert (answer["code"], answer["out"], answer["heavy"]) == (2, "", [])


@pytest.mark.parametrize(("words", "message"), USAGE, ids=[" ".join(words) for words, _ in USAGE])
def test_a_command_line_that_is_none_gets_its_usage_before_torch(answers, words, message):
    answer = answers[tuple(words)]
    assert message in answer["err"]
    assert answer["err"].startswith("usage: ")
    assert len(answer["err"]) < 2500
    assert (answer["code"], answer["out"], answer["heavy"]) == (2, "", [])


@pytest.mark.parametrize("words", HELP, ids=map(" ".join, HELP))
def test_help_needs_no_torch(answers, words):
    answer = answers[tuple(words)]
    assert answer["out"].startswith(f"usage: python -m trainer {'' if len(words) == 1 else words[0]}")
    assert (answer["code"], answer["err"], answer["heavy"]) == (0, "", [])


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.weights])
def test_missing_weights_are_told_beforehand_as_they_would_be_when_they_are_loaded(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_folders", [tmp_path])
    Image.new("RGB", (16, 16)).save(tmp_path / "wide.png")
    needed = {"text-preference": {"wanted": ["sharp"]}, "reference-similarity": {"references": [str(tmp_path)]}}
    with pytest.raises(RewardError, match="is missing") as loading:
        build(kind, needed.get(kind, {}), "cpu")
    with pytest.raises(RewardError) as beforehand:
        check_weights(kind, {})
    assert str(beforehand.value) == str(loading.value)
    for option in KINDS[kind].weights:
        with pytest.raises(RewardError, match="there is no file or folder"):
            check_weights(kind, dict.fromkeys(KINDS[kind].weights, str(tmp_path)) | {option: str(tmp_path / "gone")})
