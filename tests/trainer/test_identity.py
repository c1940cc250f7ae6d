"""Identity is not a path: a run goes on with the same files wherever they lie, and not with others in their place."""

import argparse
import json
import os
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trainer.cli import sample
from trainer.errors import ConfigError
from trainer.settings.config_file import load_config
from trainer.training import identity
from trainer.training.checkpoint import Checkpoint, save
from trainer.training.identity import digest_of, identified
from trainer.training.run_folder import RunError, check_run

CONFIG = """
prompts = ["a red apple"]
[model]
path = "models/flux"
[run]
folder = {folder!r}
[lora]
start = "models/start.safetensors"
[init]
image = "models/a.png"
denoise = 0.5
[[rewards]]
kind = "clip"
options = {{ path = "models/clip" }}
[[rewards]]
kind = "reference-similarity"
name = "like these"
options = {{ references = ["models/a.png"], path = "models/clip" }}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a config, its files beside it, and a run of seven iterations."""
    folder = tmp_path / "here"
    for part in ("flux/transformer", "flux/vae", "clip"):
        (folder / "models" / part).mkdir(parents=True)
        save_file({part: torch.ones(4)}, folder / "models" / part / "model.safetensors")
        (folder / "models" / part / "config.json").write_text(f'{{"is": "{part}"}}')
    (folder / "models/flux/model_index.json").write_text("{}")
    save_file({"a": torch.ones(4)}, folder / "models/start.safetensors")
    Image.new("RGB", (64, 64), "red").save(folder / "models/a.png")
    monkeypatch.chdir(tmp_path)
    config = config_in(folder)
    save(folder / "run/checkpoint", Checkpoint(7, {}, {}, {}, counters={}, settings=identified(config).to_dict()))
    return folder


def config_in(folder):
    (folder / "config.toml").write_text(CONFIG.format(folder=str(folder / "run")), "utf-8")
    return load_config(folder / "config.toml")


def test_a_project_that_moved_as_a_whole_goes_on(project, tmp_path):
    moved = project.rename(tmp_path / "there")
    check_run(config_in(moved), resume=True)


@pytest.mark.parametrize("part", ["flux", "clip", "start.safetensors", "a.png"])
def test_a_file_or_folder_that_moved_under_another_name_goes_on(project, part):
    (project / "models" / part).rename(project / "other")
    text = CONFIG.replace(f"models/{part}", "other").format(folder=str(project / "run"))
    (project / "config.toml").write_text(text, "utf-8")
    check_run(load_config(project / "config.toml"), resume=True)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("flux/vae/model.safetensors", "model.path"),
        ("clip/config.json", "rewards.0.options.path"),
        ("start.safetensors", "lora.start"),
    ],
)
def test_another_file_in_the_same_place_is_refused_by_name(project, part, name):
    save_file({"other": torch.ones(5)}, project / "models" / part)
    with pytest.raises(RunError, match=f"what {name} holds is not what it was"):
        check_run(config_in(project), resume=True)


def test_another_model_in_another_place_is_refused_as_ever(project):
    shutil.copytree(project / "models/flux", project / "second")
    save_file({"other": torch.ones(5)}, project / "second/vae/model.safetensors")
    (project / "config.toml").write_text(
        CONFIG.replace("models/flux", "second").format(folder=str(project / "run")), "utf-8"
    )
    with pytest.raises(RunError, match=r"model\.path was '.*models/flux', is '.*second'\)"):
        check_run(load_config(project / "config.toml"), resume=True)


@pytest.mark.parametrize(("name", "goes_on"), [("elsewhere/flux", True), ("elsewhere/schnell", False)])
def test_a_run_of_before_there_were_digests_goes_on_with_a_model_of_the_same_name(project, name, goes_on):
    settings = config_in(project).to_dict()
    assert "holds" not in settings
    save(project / "run/checkpoint", Checkpoint(8, {}, {}, {}, counters={}, settings=settings))
    check_run(config_in(project), resume=True)
    (project / "elsewhere").mkdir()
    (project / "models/flux").rename(project / name)
    text = CONFIG.replace("models/flux", name).format(folder=str(project / "run"))
    (project / "config.toml").write_text(text, "utf-8")
    config = load_config(project / "config.toml")
    if goes_on:
        check_run(config, resume=True)
    else:
        with pytest.raises(RunError, match=r"model\.path was"):
            check_run(config, resume=True)


def test_what_is_no_part_of_a_model_changes_no_digest(project):
    before = digest_of(str(project / "models/flux"), parts_alone=True)
    (project / "models/flux/README.md").write_text("new")
    (project / "models/flux/flux1-dev.safetensors").write_bytes(b"the same once more")
    (project / "models/flux/.cache").mkdir()
    (project / "models/flux/.cache/x").write_text("new")
    (project / "models/flux/vae/model.bin").write_bytes(b"the same once more")
    assert digest_of(str(project / "models/flux"), parts_alone=True) == before
    (project / "models/flux/vae/config.json").write_text("{}")
    assert digest_of(str(project / "models/flux"), parts_alone=True) != before


def test_of_a_large_file_little_is_read_and_every_part_counts(tmp_path, monkeypatch):
    """10 GB, most of which is a hole on the disk."""
    path, size = tmp_path / "large.safetensors", 10_000_000_000
    with path.open("wb") as file:
        file.truncate(size)
    before = digest_of(str(path))
    identity._of_file.cache_clear()
    for place in (0, identity.BEGINNING, size - 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        identity._of_file.cache_clear()
        after = digest_of(str(path))
        assert after != before
        before = after
    with path.open("r+b") as file:
        file.truncate(size - 1)
    assert digest_of(str(path)) != before


def test_a_file_is_read_once_as_long_as_it_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    first = digest_of(str(path))
    reads = []
    monkeypatch.setattr(identity.hashlib, "sha256", lambda *data: reads.append(data))
    assert digest_of(str(path)) == first
    assert not reads
    monkeypatch.undo()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert digest_of(str(path)) != first


def test_sample_finds_the_files_of_a_project_that_moved(project, tmp_path):
    save_file({"transformer.a.lora_A.weight": torch.zeros(2, 4)}, project / "run/lora.safetensors")
    moved = project.rename(tmp_path / "there")
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser)
    words = parser.parse_args([str(moved / "run"), "--prompts", "a", "--set", "init.image=[]"])
    config = sample.checked(words)
    assert config.model.path == str(moved / "models/flux")
    assert config.rewards[0].options == {"path": str(moved / "models/clip")}
    assert config.rewards[1].options["references"] == [str(moved / "models/a.png")]
    (moved / "models/clip/config.json").write_text("another")
    with pytest.raises(ConfigError, match=f"path={project / 'models/clip'}.* \\(is not there any more\\)"):
        sample.checked(words)


def test_settings_hold_digests_and_places_beside_the_run(project):
    holds = json.loads(json.dumps(identified(config_in(project)).to_dict()))["holds"]
    assert holds["model.path"]["beside"] == "../models/flux"
    assert set(holds) == {
        "model.path", "lora.start",
        "rewards.0.options.path", "rewards.1.options.path", "rewards.1.options.references.0",
    }  # fmt: skip
    assert all(len(its["digest"]) == 64 for its in holds.values())
