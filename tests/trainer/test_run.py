"""Runs on disk: whatever stops a run, going on with it equals never having stopped."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
from itertools import count
from pathlib import Path

import pytest
import torch
from asked import Asked
from exported import read_lora
from killing import kill_at
from patience import GUARD
from safetensors.torch import load_file
from small_config import write_config

from trainer.errors import UserError
from trainer.lock import Busy
from trainer.models.files.source import ModelError
from trainer.models.lora.targets import LoraError
from trainer.settings.config import Config, ModelSettings, RewardSettings
from trainer.settings.config_file import load_config
from trainer.store.database import DATABASE
from trainer.training.checkpoint import checkpoints
from trainer.training.checkpoint import load as load_checkpoint
from trainer.training.identity import digest_of
from trainer.training.run import start_run
from trainer.training.run_folder import LORA, RunError, completed, differences

ITERATIONS, KILLS = 12, 8


@pytest.fixture
def config(config_file, tmp_path):
    def config(folder: str = "run", *overrides: str):
        settings = [f"run.folder={str(tmp_path / folder)!r}", f"run.iterations={ITERATIONS}", *overrides]
        return load_config(config_file(), settings)

    return config


@pytest.fixture(scope="module")
def whole(flux_dev, tmp_path_factory) -> Path:
    """The folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    start_run(load_config(write_config(folder, flux_dev, "cpu"), [f"run.iterations={ITERATIONS}"]))
    return folder / "run"


def results(folder: Path) -> tuple[dict, list, list]:
    """Everything a run leaves that does not depend on the clock."""
    with sqlite3.connect(folder / DATABASE) as database:
        metrics = database.execute("SELECT * FROM metrics WHERE name NOT LIKE 'seconds%' ORDER BY 1, 2").fetchall()
        candidates = database.execute(
            "SELECT * FROM candidates JOIN scores USING (iteration, slot, candidate) ORDER BY 1, 2, 3, 7"
        ).fetchall()
    checkpoint = load_checkpoint(folder / "checkpoint")
    tensors = {**checkpoint.lora, **{f"average/{k}": v for k, v in checkpoint.average.items()}, **checkpoint.optimizer}
    return {**tensors, **load_file(folder / LORA)}, metrics, candidates


def assert_equal(folder: Path, expected: Path) -> None:
    (tensors, *tables), (expected_tensors, *expected_tables) = results(folder), results(expected)
    assert tables == expected_tables
    assert tensors.keys() == expected_tensors.keys()
    assert all(torch.equal(tensors[name], expected_tensors[name]) for name in tensors)


def test_a_stopped_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(config, tmp_path, whole):
    for stop_after in (1, 5, 0):
        asked = iter([False] * stop_after + [True])
        ending, _ = start_run(config(), resume=True, control=Asked(lambda asked=asked: next(asked)))
        assert ending.kind == "stopped"
    assert start_run(config(), resume=True)[0].kind == "complete"
    assert_equal(tmp_path / "run", whole)


@pytest.fixture
def child(monkeypatch):
    """Runs `work` in a process of its own, which costs no imports where processes can be forked from a server."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the server and its children inherit it: bits depend on it
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload(["trainer.training.run", "diffusers.pipelines.flux.pipeline_flux"])

    def run(*args) -> int:
        process = context.Process(target=killed, args=args)
        process.start()
        process.join(GUARD)
        return process.exitcode

    return run


def killed(config: Config, moment: int, reached: Path) -> None:
    """A run that ends by SIGKILL at its nth file; how many it touches is told if it does not."""
    files = kill_at(moment)
    start_run(config, resume=True)
    reached.write_text(str(files()))


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_run_killed_at_random_moments_equals_the_uninterrupted_one_bit_for_bit(config, tmp_path, child, whole):
    """SIGKILL at moments spread over loading, iterations and saving; every time the run goes on by itself."""
    assert child(config("counted", "run.iterations=2"), -1, tmp_path / "files") == 0
    files, moments = int((tmp_path / "files").read_text()), random.Random(1)
    for _ in range(KILLS):
        moment = int(moments.uniform(0.1, 1.2) * files)
        assert child(config(), moment, tmp_path / "unreached") == -signal.SIGKILL, "it was over before"
    assert child(config(), -1, tmp_path / "unreached") == 0
    assert_equal(tmp_path / "run", whole)


def test_a_longer_run_goes_on_where_a_shorter_one_ended(config, tmp_path, whole):
    start_run(config("run", "run.iterations=5"))
    start_run(config(), resume=True)
    assert_equal(tmp_path / "run", whole)


def test_a_folder_with_a_run_is_never_overwritten(config, tmp_path):
    start_run(config("run", "run.iterations=2"))
    before = results(tmp_path / "run")
    with pytest.raises(RunError, match="already holds a run of 2 iterations: use --resume, or another folder"):
        start_run(config())
    with pytest.raises(RunError, match=r"other settings \(grpo.clip was 0.2, is 0.5\): undo them"):
        start_run(config("run", "grpo.clip=0.5"), resume=True)
    with pytest.raises(RunError, match=r"prompts was .*is"):
        start_run(config("run", "prompts=['a cat']"), resume=True)
    after = results(tmp_path / "run")
    assert before[1:] == after[1:]


def test_settings_that_an_older_version_did_not_know_have_their_defaults():
    new = json.loads(json.dumps(Config(ModelSettings("m"), ("a",), (RewardSettings("r"),)).to_dict()))
    old = {name: section for name, section in new.items() if name != "init"}
    old["lora"] = {name: value for name, value in new["lora"].items() if name != "variant"}
    assert differences(completed(old), completed(new)) == []
    dora = {**new, "lora": {**new["lora"], "variant": "dora"}}
    assert differences(completed(old), completed(dora)) == ["lora.variant was 'lora', is 'dora'"]


def test_a_folder_that_is_being_trained_is_refused(config, tmp_path):
    def intrude(event):
        with pytest.raises(Busy, match="is being trained by another process: wait for it"):
            start_run(config(), resume=True)

    start_run(config("run", "run.iterations=1"), listeners=[intrude])


def test_the_exported_lora_is_the_average_and_says_where_it_comes_from(config, tmp_path, flux_dev):
    config = config("run", "run.iterations=3")
    start_run(config)
    weights, alpha, metadata = read_lora(tmp_path / "run" / LORA)
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert all(torch.equal(weights[name], checkpoint.average[name]) for name in checkpoint.average)
    assert any(not torch.equal(weights[name], checkpoint.lora[name]) for name in checkpoint.lora)
    assert alpha == 8.0
    assert metadata["base_model"] == f"sha256:{digest_of(str(flux_dev), parts_alone=True)}"
    assert metadata["iteration"] == "3"
    assert '"kind": "colourfulness"' in metadata["rewards"]
    assert json.loads(metadata["settings"])["lora"] == {
        "rank": 4, "alpha": 8.0, "targets": "all-linear", "variant": "lora", "format": "diffusers",
    }  # fmt: skip


def test_a_run_goes_on_from_a_lora_file(config, tmp_path):
    start_run(config("first", "run.iterations=2", "optimizer.ema_decay=0"))
    start = tmp_path / "first" / LORA
    _, setup = start_run(config("second", "run.iterations=1", f"lora.start={str(start)!r}", "optimizer.warmup=100000"))
    weights, _, _ = read_lora(start)
    assert all(torch.allclose(setup.lora[name], weights[name], atol=1e-6) for name in weights)
    with pytest.raises(LoraError, match=r"has rank 4: set lora\.rank to it or above, it was 2"):
        start_run(config("third", f"lora.start={str(start)!r}", "lora.rank=2"))
    assert not (tmp_path / "third").exists()


def test_a_full_disk_loses_nothing(config, tmp_path, monkeypatch, whole):
    """Saving fails once in mid-run: the run ends with the error, and goes on afterwards as if nothing had been."""
    replace, calls = os.replace, count()

    def fails_at_the_fourth(*names):
        if next(calls) == 4:
            raise OSError(28, "No space left on device")
        replace(*names)

    monkeypatch.setattr(os, "replace", fails_at_the_fourth)
    with pytest.raises(UserError, match="the disk is full, or has no room for another file: free some space"):
        start_run(config())
    monkeypatch.undo()
    # two names are new at each save, the checkpoint's and the LoRA's: the third save failed, and was made up for
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoint")] == ["000004", "000006"]
    start_run(config(), resume=True)
    assert_equal(tmp_path / "run", whole)


def test_a_damaged_store_is_set_aside_and_the_run_goes_on(config, tmp_path, whole, caplog):
    start_run(config("run", "run.iterations=4"))
    store = tmp_path / "run" / DATABASE
    raw = bytearray(store.read_bytes())
    raw[100:4096] = bytes(3996)
    store.write_bytes(raw)
    start_run(config(), resume=True)
    assert [r.getMessage() for r in caplog.records if "begun anew" in r.getMessage()] == [
        f"the store {store} is damaged (database disk image is malformed): kept as run.sqlite.damaged, and begun anew"
    ]
    assert (tmp_path / "run" / "run.sqlite.damaged").read_bytes() == raw
    (tensors, metrics, _), (expected, expected_metrics, _) = results(tmp_path / "run"), results(whole)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert metrics == [row for row in expected_metrics if row[1] >= 4]


def test_a_run_that_never_began_leaves_no_folder(config, tmp_path):
    def load(_):
        assert (tmp_path / "new" / "run" / DATABASE).is_file()  # before the models
        raise ModelError("no such model")

    with pytest.raises(ModelError, match="no such model"):
        start_run(config("new/run"), load=load)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelError):
        start_run(config("mine/run"), load=lambda _: load_never())
    assert list((tmp_path / "mine").iterdir()) == []


def load_never():
    raise ModelError("no such model")
