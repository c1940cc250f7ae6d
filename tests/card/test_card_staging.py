"""Weights that cannot be page-locked reach the card beside its computation all the same."""

import card
import pytest
import torch
from runs import equal

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state
from trainer.models.storage import staging
from trainer.models.storage.pinned import PinnedMemory
from trainer.models.storage.staging import Stage
from trainer.settings.config_file import load_config
from trainer.training.prepare import prepare

ROWS = 9  # of 8 float32 numbers, in pieces of one row
KINDS = [torch.float32, torch.bfloat16, torch.int8]


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr(staging, "PIECE", 32)
    with card.pinning():
        yield Stage(card.module, card.Stream(card.CARD))


def weight(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(8 * ROWS).view(ROWS, 8).to(dtype)


def arrived(done) -> None:
    card.module.current_stream().wait_event(done())


@pytest.mark.parametrize("dtype", KINDS)
def test_every_piece_arrives_however_many_there_are(stage, dtype):
    source, target = weight(dtype), torch.empty(ROWS, 8, dtype=dtype, device="card")
    arrived(stage.copy(source, target))
    assert torch.equal(target.cpu(), source)


def test_the_device_reads_page_locked_memory_alone(stage, monkeypatch):
    read, copy = [], torch.Tensor.copy_

    def watched(target, source, non_blocking=False):
        if non_blocking:
            read.append(source)
        return copy(target, source, non_blocking=non_blocking)

    monkeypatch.setattr(torch.Tensor, "copy_", watched)
    arrived(stage.copy(weight(), torch.empty(ROWS, 8, device="card")))
    assert len(read) == ROWS
    assert all(source.is_pinned() for source in read)
    assert len({source.untyped_storage().data_ptr() for source in read}) == 2


def test_copies_that_are_under_way_together_arrive_whole(stage):
    sources = [weight() + 1000 * i for i in range(4)]
    targets = [torch.empty(ROWS, 8, device="card") for _ in sources]
    begun = [stage.copy(source, target) for source, target in zip(sources, targets, strict=True)]
    for source, target, done in zip(sources, targets, begun, strict=True):
        arrived(done)
        assert torch.equal(target.cpu(), source)


def test_a_copy_that_nobody_waits_for_may_not_be_read(stage):
    target = torch.empty(ROWS, 8, device="card")
    stage.copy(weight(), target)()
    with pytest.raises(card.Race, match="yet to fill"):
        target.square()


def test_memory_that_the_computation_has_used_is_waited_for(stage):
    target = torch.zeros(ROWS, 8, device="card")
    target.square()
    arrived(stage.copy(weight(), target))
    assert not card.races


def test_if_no_buffer_can_be_page_locked_the_weight_comes_as_it_is(stage, monkeypatch, caplog):
    empty = torch.empty

    def refused(*size, pin_memory=False, **options):
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory\nmore lines")
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", refused)
    target = torch.empty(ROWS, 8, device="card")
    for _ in range(2):
        arrived(stage.copy(weight(), target))
    assert torch.equal(target.cpu(), weight())
    assert [record.getMessage().count("(CUDA error: out of memory)") for record in caplog.records] == [1]


def pageable(memory: PinnedMemory, size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device=memory.device)


@pytest.mark.parametrize("memory", ["bf16", "fp8"])
def test_an_iteration_out_of_memory_that_is_not_page_locked_is_the_same(config_file, monkeypatch, memory):
    def lora(locked: bool):
        if not locked:
            monkeypatch.setattr(PinnedMemory, "_allocate", pageable)
        settings = ["model.device='card'", "model.dtype='bfloat16'", f"model.memory={memory!r}", "model.offload=1.0"]
        setup = prepare(load_config(config_file(), settings))
        state = new_state(setup)
        group = collect(setup, 0, Clock(setup.policy.device))
        improve(setup, state, group, pairs_of(setup, group, 0))
        return {name: p.detach().cpu() for name, p in setup.lora.items()}

    with card.pinning() as pinned:
        locked = lora(True)
        pinned.clear()
        assert equal(locked, lora(False))
        assert {buffer.nbytes for buffer in pinned} == {staging.PIECE}
    assert not card.races
