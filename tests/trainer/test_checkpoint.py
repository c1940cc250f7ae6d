"""Checkpoints: whole or not at all."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from trainer.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoints,
    load,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save,
)


def state(iteration: int, value: float = 1.0) -> Checkpoint:
    lora = {"a.lora_A.weight": torch.full((2, 3), value)}
    optimizer = {"a.lora_A.weight/exp_avg": torch.full((2, 3), 2 * value)}
    return Checkpoint(iteration, lora, {"a.lora_A.weight": torch.zeros(2, 3)}, optimizer, {"updates": 5}, {"grpo": {}})


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    tensors = all(
        getattr(a, part).keys() == getattr(b, part).keys()
        and all(torch.equal(getattr(a, part)[k], getattr(b, part)[k]) for k in getattr(a, part))
        for part in ("lora", "average", "optimizer")
    )
    return tensors and (a.iteration, a.counters, a.settings) == (b.iteration, b.counters, b.settings)


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path, state(3))
    assert equal(load(tmp_path), state(3))


def test_no_checkpoint_is_none(tmp_path):
    assert load(tmp_path) is None
    assert load(tmp_path / "missing") is None


def test_the_newest_comes_back_and_two_are_kept(tmp_path):
    for iteration in (9, 10, 11):
        save(tmp_path, state(iteration, iteration))
    assert [p.name for p in checkpoints(tmp_path)] == ["000010", "000011"]
    assert equal(load(tmp_path), state(11, 11))


@pytest.mark.parametrize("fault", ["truncated", "missing", "not JSON"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, fault):
    save(tmp_path, state(1))
    newest = save(tmp_path, state(2))
    if fault == "truncated":
        os.truncate(newest / "optimizer.safetensors", 40)
    elif fault == "missing":
        (newest / "lora.safetensors").unlink()
    else:
        (newest / "state.json").write_text("{")
    assert equal(load(tmp_path), state(1))
    save(tmp_path, state(2, 7.0))  # and it is replaced when training comes by again
    assert equal(load(tmp_path), state(2, 7.0))


def test_only_damaged_checkpoints_is_an_error_not_a_silent_new_start(tmp_path):
    (save(tmp_path, state(1)) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read"):
        load(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_while_saving_leaves_the_last_good_one(tmp_path, monkeypatch, call):
    save(tmp_path, state(1))

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, state(2))
    monkeypatch.undo()
    assert equal(load(tmp_path), state(1))
    save(tmp_path, state(2))
    assert equal(load(tmp_path), state(2))
    assert not list(tmp_path.glob("*.partial"))


def test_each_byte_that_changes_is_noticed(tmp_path):
    save(tmp_path, state(1))
    newest = save(tmp_path, state(2))
    for file in sorted(newest.iterdir()):
        raw = file.read_bytes()
        for place in range(len(raw)):
            file.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
            found = load(tmp_path)
            # white space may change, and says the same
            assert found.iteration == 1 or (file.name == "state.json" and equal(found, state(2))), (file.name, place)
        file.write_bytes(raw)
    assert load(tmp_path).iteration == 2


def test_a_damaged_checkpoint_is_named(tmp_path, caplog):
    save(tmp_path, state(1))
    newest = save(tmp_path, state(2))
    size = (newest / "lora.safetensors").stat().st_size
    os.truncate(newest / "lora.safetensors", 8)
    load(tmp_path)
    assert [r.getMessage() for r in caplog.records] == [
        f"checkpoint {newest} is damaged ('lora.safetensors has 8 bytes of {size}'); "
        "going on from the one after 1 iterations"
    ]


def test_a_checkpoint_of_a_newer_version_is_refused_and_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.training.checkpoint.FORMAT", 7)
    newest = save(tmp_path, state(1))
    monkeypatch.undo()
    before = {path: path.read_bytes() for path in newest.iterdir()}
    for read in (load, load_state):
        with pytest.raises(CheckpointError, match=r"000001 was written by a newer version \(its format is 7, this"):
            read(tmp_path)
    assert {path: path.read_bytes() for path in newest.iterdir()} == before


def test_a_checkpoint_of_an_older_version_without_digests_is_read(tmp_path):
    path = save(tmp_path, state(1)) / "state.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("format", "digest", "sha256")}
    path.write_text(json.dumps(old))
    assert equal(load(tmp_path), state(1))
    assert load_state(tmp_path) == old


def stubborn(monkeypatch, *names):
    """Folders that cannot be removed, as somebody has a file in them open."""
    rmtree = shutil.rmtree

    def remove(path, *rest, **options):
        if Path(path).name in names:
            raise PermissionError(13, "The process cannot access the file", str(path))
        rmtree(path, *rest, **options)

    monkeypatch.setattr(shutil, "rmtree", remove)


def test_an_old_checkpoint_that_cannot_be_removed_is_left_and_tried_again(tmp_path, monkeypatch):
    for iteration in (1, 2):
        save(tmp_path, state(iteration))
    stubborn(monkeypatch, "000001")
    save(tmp_path, state(3))
    assert [p.name for p in checkpoints(tmp_path)] == ["000001", "000002", "000003"]
    monkeypatch.undo()
    save(tmp_path, state(4))
    assert [p.name for p in checkpoints(tmp_path)] == ["000003", "000004"]


def test_a_partial_one_that_cannot_be_removed_is_left_and_tried_again(tmp_path, monkeypatch):
    (tmp_path / "000001.partial").mkdir()
    stubborn(monkeypatch, "000001.partial")
    save(tmp_path, state(1))
    assert equal(load(tmp_path), state(1))
    monkeypatch.undo()
    save(tmp_path, state(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000001", "000002"]


def test_a_damaged_one_that_cannot_be_removed_keeps_its_name(tmp_path, monkeypatch):
    save(tmp_path, state(1))
    (save(tmp_path, state(2)) / "state.json").unlink()
    stubborn(monkeypatch, "000002")
    assert save(tmp_path, state(2)).name == "000002-2"
    assert equal(load(tmp_path), state(2))
    monkeypatch.undo()
    save(tmp_path, state(3))
    assert [p.name for p in checkpoints(tmp_path)] == ["000002-2", "000003"]


def test_a_rename_that_is_denied_for_an_instant_is_tried_again(tmp_path, monkeypatch):
    replace, refusals = os.replace, iter([True, True])

    def denied(*paths):
        if next(refusals, False):
            raise PermissionError(13, "Access is denied")
        replace(*paths)

    monkeypatch.setattr(os, "replace", denied)
    monkeypatch.setattr("trainer.files.PAUSE", 0)
    save(tmp_path, state(1))
    assert equal(load(tmp_path), state(1))


def test_nothing_is_removed_before_the_new_one_is_whole(tmp_path, monkeypatch):
    for iteration in (1, 2):
        save(tmp_path, state(iteration))
    present = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (present.extend(checkpoints(tmp_path)), replace(*a)))
    save(tmp_path, state(3))
    assert [p.name for p in present] == ["000001", "000002"]


def test_a_restored_optimizer_goes_on_exactly():
    def parameters():
        torch.manual_seed(0)
        return {"a": torch.nn.Parameter(torch.randn(3)), "b": torch.nn.Parameter(torch.randn(2, 2))}

    def steps(optimizer, named, seeds):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for p in named.values():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    whole = parameters()
    steps(torch.optim.AdamW(list(whole.values()), lr=0.1), whole, range(6))

    first = parameters()
    optimizer = torch.optim.AdamW(list(first.values()), lr=0.1)
    steps(optimizer, first, range(3))
    kept = {k: v.clone() for k, v in optimizer_tensors(optimizer, first).items()}
    # as parts of one memory, which whoever goes on must neither keep nor change
    whole_buffer = torch.cat([v.flatten() for v in kept.values()])
    parts = whole_buffer.split([v.numel() for v in kept.values()])
    saved = {k: part.view(v.shape) for (k, v), part in zip(kept.items(), parts, strict=True)}

    second = {k: torch.nn.Parameter(v.detach().clone()) for k, v in first.items()}
    resumed = torch.optim.AdamW(list(second.values()), lr=0.1)
    restore_optimizer(resumed, second, saved)
    restored = optimizer_tensors(resumed, second).values()
    assert [v.untyped_storage().nbytes() for v in restored] == [v.nbytes for v in kept.values()]
    steps(resumed, second, range(3, 6))
    assert all(torch.equal(saved[k], kept[k]) for k in kept)
    assert all(torch.equal(second[k], whole[k]) for k in whole)
