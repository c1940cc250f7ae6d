"""Checkpoints: whole or not at all."""

import os

import pytest
import torch

from trainer.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoints,
    load,
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
