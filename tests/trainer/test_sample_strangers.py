"""A LoRA and a run's folder are data: `sample` reads, sends, fetches and runs nothing that they name unasked.

And what a LoRA says of itself to others holds nothing of the user's.
"""

import json
import socket
from contextlib import suppress
from dataclasses import fields, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trainer.__main__ import main
from trainer.cli import sample
from trainer.errors import ConfigError
from trainer.models.lora.endings import largest_rank
from trainer.models.lora.export import export_lora
from trainer.rewards import KINDS
from trainer.settings.config import SECTIONS, Config, RewardSettings
from trainer.settings.config_file import parse
from trainer.training.checkpoint import Checkpoint, save
from trainer.training.lora_header import cleaned, lora_metadata
from trainer.training.taken import is_local

LORA = {"transformer.a.lora_A.weight": torch.zeros(3, 8), "transformer.a.lora_B.weight": torch.zeros(8, 3)}
PLAIN = {"model": {"path": "embedded"}, "rewards": [{"kind": "tiny-clip"}], "sampling": {"width": 64, "height": 64}}
DRAW = ("--prompts", "a red apple", "-o", "grid.png")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """In an empty folder, and whoever connects is caught."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something was asked over the network"))


@pytest.fixture(params=["file", "old file", "run"])
def stranger(request, tmp_path):
    """Writes settings as a LoRA's file of this version, of an older one, or a run's folder has them."""

    def write(**settings) -> str:
        settings = {**PLAIN, **settings}
        metadata = {"settings": json.dumps(settings), "rewards": json.dumps(settings["rewards"])}
        if request.param == "file":
            return lora(cleaned({**metadata, "base_model": settings["model"]["path"]}))
        if request.param == "old file":
            return lora(metadata)
        save(tmp_path / "run/checkpoint", Checkpoint(1, {}, {}, {}, counters={}, settings=settings))
        save_file(LORA, tmp_path / "run/lora.safetensors")
        return "run"

    write.kind = request.param
    return write


def lora(metadata) -> str:
    save_file(LORA, "lora.safetensors", {k: v for k, v in metadata.items() if isinstance(v, str)})
    return "lora.safetensors"


def config_of(*words: str) -> Config:
    import argparse

    parser = argparse.ArgumentParser()
    sample.add_arguments(parser)
    return sample.checked(parser.parse_args(list(words)))


def refused(capsys, *words: str) -> str:
    assert main(["sample", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert len(told) < 3000
    return told


def test_an_embedded_run_needs_nothing_beside_its_name(stranger):
    config = config_of(stranger(), *DRAW)
    assert (config.model.path, [r.kind for r in config.rewards]) == ("embedded", ["tiny-clip"])
    assert (config.sampling.width, config.lora.rank, config.lora.targets) == (64, 3, "start")


SENT = {"kind": "remote", "options": {"url": "http://evil.example", "token_env": "SECRET"}}
JUDGE = {"kind": "vlm-judge", "options": {"url": "http://evil.example", "pattern": "(a+)+$"}}


@pytest.mark.parametrize("reward", [SENT, JUDGE], ids=["remote", "vlm-judge"])
def test_no_picture_and_no_token_goes_to_a_server_that_it_names(stranger, reward, capsys):
    source = stranger(rewards=[reward])
    told = refused(capsys, source, *DRAW)
    assert f"--reward {reward['kind']}" in told
    assert "(would be sent the pictures)" in told
    assert "hunter2" not in told
    ours = config_of(source, *DRAW, "--reward", "remote", "url=http://localhost:1", "timeout=3", "weight=2")
    (found,) = ours.rewards
    assert (found.options, found.weight) == ({"url": "http://localhost:1", "timeout": 3}, 2.0)


@pytest.mark.parametrize("path", ["hub:evil/model", "http://evil.example/m", "//evil/share/m", "\\\\evil\\share\\m"])
def test_no_model_is_fetched_or_asked_for_elsewhere(stranger, path, capsys):
    told = refused(capsys, stranger(model={"path": path}), *DRAW)
    assert "--model" in told
    assert "(would be fetched or asked for over the network)" in told or stranger.kind == "file"
    assert config_of("run" if stranger.kind == "run" else "lora.safetensors", *DRAW, "--model", "embedded")


def test_a_runs_folder_may_name_local_files_and_a_loras_file_may_not(stranger, flux_dev, capsys):
    source = stranger(model={"path": str(flux_dev)})
    if stranger.kind == "run":
        assert config_of(source, *DRAW).model.path == str(flux_dev)
    else:
        assert "--model" in refused(capsys, source, *DRAW)
        assert config_of(source, *DRAW, "--model", str(flux_dev)).model.path == str(flux_dev)


def test_what_a_run_names_and_is_gone_is_told_with_the_option_that_gives_it(tmp_path, capsys):
    settings = {**PLAIN, "model": {"path": "/gone/flux"}, "init": {"image": ["/gone/a.png"], "denoise": 0.5}}
    save(tmp_path / "run/checkpoint", Checkpoint(1, {}, {}, {}, counters={}, settings=settings))
    save_file(LORA, tmp_path / "run/lora.safetensors")
    told = refused(capsys, "run", *DRAW)
    assert "--model /gone/flux (is not there any more)" in told
    assert "--set init.image='['/gone/a.png']' (is not there any more)" in told or "init.image=" in told
    assert config_of("run", *DRAW, "--model", "embedded", "--set", "init.image=[]").init.image == ()


def test_pictures_that_a_run_began_from_are_read_from_its_folder_alone(stranger, tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    source = stranger(init={"image": [str(tmp_path / "a.png")], "denoise": 0.5, "digest": "0"})
    if stranger.kind == "run":
        assert config_of(source, *DRAW).init.image == (str(tmp_path / "a.png"),)
        return
    assert "--set init.image=" in refused(capsys, source, *DRAW)
    assert config_of(source, *DRAW, "--set", "init.image=a.png").init.denoise == 0.5


@pytest.mark.parametrize(
    ("setting", "value"),
    [("width", 10**7), ("steps", 10**9), ("sizes", [[10**6, 10**6]]), ("shift", "x"), ("height", 1e400)],
)
def test_an_absurd_size_is_not_drawn(stranger, setting, value, capsys):
    source = stranger(sampling={**PLAIN["sampling"], setting: value})
    if stranger.kind == "file":  # its header has none
        assert config_of(source, *DRAW).sampling.steps <= 100
        return
    assert f"--set sampling.{setting}=" in refused(capsys, source, *DRAW)


def test_the_layers_and_the_rank_are_those_of_the_tensors_whatever_the_settings_say(stranger):
    config = config_of(stranger(lora={"targets": "(a+)+$", "rank": 512, "start": "/etc/passwd", "alpha": 1}), *DRAW)
    assert (config.lora.targets, config.lora.rank) == ("start", 3)
    assert config.lora.start.endswith(("lora.safetensors", "run/lora.safetensors"))


@pytest.mark.parametrize(
    "settings",
    [
        {"model": 3}, {"model": {"path": 7}}, {"model": {"path": ["embedded"]}}, {"rewards": "all"}, {"rewards": []},
        {"rewards": [1, None]}, {"rewards": [{"kind": ["x"]}]}, {"rewards": [{"kind": "x" * 10**6}]},
        {"rewards": [{"kind": "\x1b[31m\nerror: all is well"}]}, {"sampling": [1]}, {"sampling": {"width": "64"}},
        {"model": {"path": "a\0b"}}, {"model": {"path": "x" * 10**6}}, {"init": {"image": 3, "denoise": "no"}},
    ],
)  # fmt: skip
def test_settings_of_any_shape_are_one_line_or_left_out(stranger, settings, capsys):
    try:
        source = stranger(**settings)
    except (KeyError, TypeError):  # no such settings can be written
        return
    code = main(["sample", source, "--prompts", "a", "-o", "grid"])
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2, 1)
    assert "\x1b" not in told
    told = refused(capsys, source, *DRAW, "--set", "sampling.width=1")
    assert "\x1b" not in told


def test_paths_of_other_machines_are_not_local():
    assert all(map(is_local, ["/a/b", "a", "C:\\a", "~/a", ["a", "b"]]))
    far = ["//a/b", "\\\\a\\b", "/\\a", "\\/a", "http://a", "hub:a/b", "smb://a", "a\0b", 3, None, ["a", "//b"]]
    assert not any(map(is_local, far))


def test_the_largest_rank_is_that_of_the_halves_that_go_down():
    assert largest_rank({"a.lora_down.weight": (5, 9), "a.lora_up.weight": (70, 5), "b.lora_A.weight": (6, 9)}) == 6
    assert largest_rank({"a.lora_A.weight": (), "a.alpha": ()}) == 0


# ---- what a LoRA says of itself

MARK = "xyzzy"


def with_mark(section, name: str, several: bool):
    """The section with the mark in this setting, as a path or a class of the user's; as it was if it takes neither."""
    for text in (f"/home/{MARK}/{name}", f"{MARK}.{MARK}:{MARK}"):
        with suppress(ConfigError):
            return replace(section, **{name: (text,) if several else text})
    return section


def filled() -> Config:
    """Every setting that takes free words holds the mark, and so does every option of every reward."""
    config = parse({**PLAIN, "prompts": ["a"]})
    sections = {}
    for name, cls in SECTIONS.items():
        section = getattr(config, name)
        for f in fields(cls):
            if "str" in str(f.type):
                sections[name] = section = with_mark(section, f.name, isinstance(getattr(section, f.name), tuple))
    options = {
        kind: {option: f"http://{MARK}@{MARK}/{option}" for option in (*described.options, MARK)}
        for kind, described in KINDS.items()
    }
    rewards = [RewardSettings(kind, name=f"{MARK} {kind}", options=its) for kind, its in options.items()]
    rewards += [RewardSettings(f"{MARK}.{MARK}:Own", options={MARK: MARK})]
    return replace(config, prompts=(f"a {MARK}",), rewards=tuple(rewards), **sections)


def test_no_word_of_the_users_is_in_the_header_of_an_exported_lora(tmp_path):
    config = filled()
    assert json.dumps(config.to_dict()).count(MARK) > 60
    path = export_lora(
        tmp_path / "lora.safetensors", LORA, lora_metadata(config, 3, [{"iteration": 1, "strength": 0.5, "by": MARK}])
    )
    assert MARK.encode() not in path.read_bytes()
    with safe_open(path, "pt") as file:
        found = file.metadata()
    assert json.loads(found["changes"]) == [{"iteration": 1, "strength": 0.5}]
    assert {r["kind"] for r in json.loads(found["rewards"])} == {*KINDS, "own"}


def test_the_header_of_an_older_version_is_cleaned_when_it_is_written_again():
    settings = filled().to_dict()
    old = {
        "format": "pt", "software": "neighbor-grpo 0.1.0", "base_model": f"/home/{MARK}", "prompts_sha256": MARK,
        "iteration": "12", "rewards": json.dumps(settings["rewards"]), "settings": json.dumps(settings),
        "changes": json.dumps([{"iteration": 2, "note": MARK}]), MARK: MARK,
    }  # fmt: skip
    found = cleaned(old)
    assert MARK not in json.dumps(found)
    assert (found["iteration"], found["software"]) == ("12", "neighbor-grpo 0.1.0")
    assert cleaned(found) == found
