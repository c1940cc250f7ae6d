"""A reward of the user's own: a class in a file of theirs, named in a config, trained on, served, planned."""

import json
import sqlite3
import sys

import pytest
import torch
from safetensors.torch import save_file
from served import running

from trainer.__main__ import main
from trainer.engine.setup import build_rewards
from trainer.errors import ConfigError, UserError
from trainer.reward_server.config import load_server_config
from trainer.rewards import RewardError, build
from trainer.settings.config_file import load_config
from trainer.store.database import DATABASE
from trainer.training.checkpoint import Checkpoint, save

SOURCE = '''
import sys
import torch
from dataclasses import dataclass
sys.my_rewards += 1

class Channel:
    """The mean of a colour."""

    def __init__(self, colour, scale=1.0):
        self.index, self.scale = "rgb".index(colour), scale

    def score(self, images, prompts):
        return images[:, self.index].mean((1, 2)) * self.scale

class Silent:
    def __init__(self, colour):
        pass

class Placed:
    def __init__(self, device, **more):
        self.device, self.more = device, more

    def score(self, images, prompts):
        return images.mean((1, 2, 3))

class Moved:
    def to(self, device):
        self.device = device

    score = Placed.score

@dataclass
class Data:
    colour: str

    def score(self, images, prompts):
        return images.mean((1, 2, 3))

class Child(Silent):
    pass
'''
RED = '[[rewards]]\nkind = "my_rewards:Channel"\noptions = { colour = "r", scale = 2.0 }'


@pytest.fixture(autouse=True)
def my_rewards(tmp_path, monkeypatch):
    """The module, in the working directory; `sys.my_rewards` counts how often it was imported."""
    (tmp_path / "my_rewards.py").write_text(SOURCE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "my_rewards", 0, raising=False)
    yield
    sys.modules.pop("my_rewards", None)


def metrics(folder, name: str) -> list[float]:
    with sqlite3.connect(folder / DATABASE) as database:
        return [v for (v,) in database.execute("SELECT value FROM metrics WHERE name = ? ORDER BY iteration", (name,))]


def test_a_whole_training_by_the_command_line_and_it_goes_on(config_file, tmp_path, capsys):
    watched = '[[rewards]]\nkind = "my_rewards:Channel"\nname = "plain"\nheld_out = true\noptions = { colour = "r" }'
    path = config_file(rewards=f"{RED}\n{watched}")
    assert main(["train", str(path), "--set", "run.iterations=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["last"]["grad_norm"] > 0
    assert main(["train", str(path), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "complete"
    red, plain = (metrics(tmp_path / "run", f"reward/{name}") for name in ("my_rewards:Channel", "plain"))
    assert len(red) == 3
    assert red == pytest.approx([2 * value for value in plain])
    assert 0 < min(plain) < max(plain) < 1


def test_its_run_is_sampled_if_the_user_repeats_it(config_file, tmp_path, capsys):
    main(["train", str(config_file(rewards=RED)), "--set", "run.iterations=1", "--json"])
    sys.modules.pop("my_rewards")
    capsys.readouterr()
    sample = ["--prompts", "a red apple", "--seeds", "1", "2", "--json"]
    assert main(["sample", "run", *sample]) == 2
    told = capsys.readouterr().err
    repeat = "--reward my_rewards:Channel colour=r scale=2.0"
    assert told.startswith("error: run may come from anybody: repeat what you trust of it, or give others: ")
    assert told.endswith(f": {repeat} (its code would run)\n")
    assert sys.my_rewards == 1
    assert main(["sample", "run", *sample, *repeat.split()]) == 0
    assert sys.my_rewards == 2
    assert json.loads(capsys.readouterr().out)["rewards"]["my_rewards:Channel"]["before"] > 0


@pytest.mark.parametrize("place", ["reward", "model.family", "sampling.solver", "grpo.objective"])
@pytest.mark.parametrize("source", ["foreign", "foreign/lora.safetensors"])
def test_a_lora_or_a_run_of_somebody_runs_no_code_that_it_names(config_file, tmp_path, capsys, place, source):
    settings = load_config(config_file()).to_dict()
    section, _, key = place.partition(".")
    (settings["rewards"][0] if section == "reward" else settings[section])[key or "kind"] = "my_rewards:Channel"
    save(tmp_path / "foreign/checkpoint", Checkpoint(1, {}, {}, {}, counters={}, settings=settings))
    metadata = {"settings": json.dumps(settings), "rewards": json.dumps(settings["rewards"])}
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign/lora.safetensors", metadata)
    assert main(["sample", source, "--prompts", "a"]) == 2
    told = capsys.readouterr().err
    if place != "grpo.objective":  # which draws nothing, and is left out
        assert "my_rewards:Channel (its code would run)" in told
    assert sys.my_rewards == 0


def test_a_reward_server_scores_by_it(tmp_path):
    (tmp_path / "rewards.toml").write_text(RED, "utf-8")
    (settings,), _ = load_server_config(tmp_path / "rewards.toml")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with running({settings.label: build(settings.kind, settings.options, "cpu")}) as served:
        found = build("remote", {"url": served.url, "reward": "my_rewards:Channel"}, "cpu").score(images, ["a"] * 3)
    torch.testing.assert_close(found, 2 * images[:, 0].mean((1, 2)))


def test_the_planner_says_that_it_cannot_count_it(config_file, capsys):
    path = config_file(rewards=RED, model='path = "embedded"')
    assert main(["plan", str(path)]) == 0
    assert "reward 'my_rewards:Channel': a class of your own, not counted" in capsys.readouterr().out


def test_a_class_that_takes_a_device_gets_it_and_one_that_moves_is_moved():
    placed = build("my_rewards:Placed", {"anything": 1}, "meta")
    assert (placed.device, placed.more) == ("meta", {"anything": 1})
    assert build("my_rewards:Moved", {}, "meta").device == "meta"


WRONG = {
    "module": ("my_reward:Channel", {}, "'my_reward:Channel': there is no module my_reward in"),
    "class": (
        "my_rewards:Chanel",
        {},
        "'my_rewards:Chanel': the module my_rewards has no class Chanel: it has Channel",
    ),
    "name": ("my_rewards:", {}, "'my_rewards:' names no class: write it as 'package.module:Class'"),
    "option": (
        "my_rewards:Channel",
        {"color": "r"},
        "'color' is no option of the reward 'my_rewards:Channel': did you mean 'colour'?",
    ),
    "needed": (
        "my_rewards:Channel",
        {"scale": 1.0},
        "rewards.0.options.colour = None: the reward 'my_rewards:Channel' needs it",
    ),
    "no options": (
        "my_rewards:Moved",
        {"scale": 1.0},
        "rewards.0.options.scale = 1.0: the reward 'my_rewards:Moved' takes no options",
    ),
    "score": ("my_rewards:Silent", {"colour": "r"}, "'my_rewards:Silent': the class has no method score: it needs one"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_before_its_module_is_imported(config_file, capsys, case):
    kind, options, message = WRONG[case]
    written = ", ".join(f"{name} = {value!r}" for name, value in options.items())
    path = config_file(rewards=f'[[rewards]]\nkind = "{kind}"\noptions = {{ {written} }}')
    assert main(["train", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert told.count("\n") == 1
    assert sys.my_rewards == 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("my_rewards:Data", "color = 'r'", "the reward 'my_rewards:Data' takes no option 'color': it takes colour"),
        ("my_rewards:Data", "", "the reward 'my_rewards:Data' needs the option 'colour'"),
        ("my_rewards:Child", "colour = 'r'", "'my_rewards:Child': the class has no method score: it needs one"),
    ],
)
def test_what_only_the_class_itself_tells_is_one_line_when_it_is_built(config_file, kind, options, message):
    config = load_config(config_file(rewards=f'[[rewards]]\nkind = "{kind}"\noptions = {{ {options} }}'))
    with pytest.raises((ConfigError, RewardError)) as caught:
        build_rewards(config)
    assert isinstance(caught.value, UserError)
    assert str(caught.value) == message
