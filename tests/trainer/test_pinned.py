"""Host memory of offloaded weights: tensors side by side, in pieces that waste nothing when torch rounds them up."""

import weakref

import pytest
import torch
from small_step import small_flux

from trainer.models.storage import pinned
from trainer.models.storage.frozen import FrozenLinear
from trainer.models.storage.memory import MemoryPlan, Storage
from trainer.models.storage.pinned import CHUNK, PinnedMemory

CPU = torch.device("cpu")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(pinned, "CHUNK", 4096)


def test_a_chunk_is_not_rounded_up():
    assert CHUNK.bit_count() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_tensors_are_kept_bit_by_bit_and_share_a_chunk(small_chunks, dtype):
    memory = PinnedMemory(CPU, pinned=False)
    tensors = [torch.randn(n, 3).to(dtype) for n in (1, 5, 7)]
    kept = [memory.copied(tensor) for tensor in tensors]
    for tensor, copy in zip(tensors, kept, strict=True):
        assert (copy.dtype, copy.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(copy.view(torch.uint8), tensor.view(torch.uint8))
        assert copy.data_ptr() != tensor.data_ptr()
    assert len({t.untyped_storage().data_ptr() for t in kept}) == 1
    transposed = torch.randn(3, 5).T
    assert torch.equal(memory.copied(transposed), transposed)


def test_a_full_chunk_is_followed_by_another_and_gaps_are_filled(small_chunks):
    memory = PinnedMemory(CPU, pinned=False)
    sizes = (3000, 2000, 900, 5000, 4096)
    kept = [memory.copied(torch.full((size,), i, dtype=torch.int8)) for i, size in enumerate(sizes)]
    assert all(t.eq(i).all() for i, t in enumerate(kept))
    chunks = [t.untyped_storage().data_ptr() for t in kept]
    assert chunks[0] == chunks[2]  # behind the first, where there is room
    assert len(set(chunks)) == 4
    assert [t.untyped_storage().nbytes() for t in kept] == [4096, 4096, 4096, 5120, 4096]


def test_a_chunk_lives_as_long_as_a_tensor_in_it():
    memory = PinnedMemory(CPU, pinned=False)
    first, second = memory.copied(torch.zeros(3)), memory.copied(torch.ones(3))
    storage = weakref.ref(first.untyped_storage())
    del memory, first
    assert second.eq(1).all()
    assert storage() is not None
    del second
    assert storage() is None


@pytest.mark.parametrize(("device", "locked"), [("cuda", True), ("cpu", False)])
def test_memory_is_page_locked_for_cuda_alone(monkeypatch, device, locked):
    asked, empty = [], torch.empty

    def watched(*shape, pin_memory=False, **options):
        asked.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", watched)
    Storage(MemoryPlan("bf16", 1.0), device=device, dtype=torch.float32).host.copied(torch.zeros(3))
    assert asked[0] is locked


def test_where_no_more_can_be_page_locked_the_rest_is_not(small_chunks, monkeypatch, caplog):
    locked, empty = [], torch.empty

    def limited(*shape, pin_memory=False, **options):
        if pin_memory and len(locked) == 2:
            raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")
        locked.extend([True] * pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", limited)
    memory = PinnedMemory(CPU, pinned=True)
    kept = [memory.copied(torch.full((4000,), i, dtype=torch.int8)) for i in range(5)]
    assert all(t.eq(i).all() for i, t in enumerate(kept))
    assert len(locked) == 2
    (warning,) = caplog.messages  # once
    assert "no more than 0.0 GiB can be page-locked (CUDA error: out of memory)" in warning
    monkeypatch.setattr(torch, "empty", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no memory at all")))
    with pytest.raises(RuntimeError, match="no memory at all"):
        PinnedMemory(CPU, pinned=False).copied(torch.zeros(3))


def test_offloaded_weights_are_kept_there(small_chunks):
    model = small_flux()
    Storage(MemoryPlan("fp8", 1.0), device="cpu", dtype=torch.float32).store(model)
    weights = [m.weight for m in model.modules() if isinstance(m, FrozenLinear)]
    chunks = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in weights}
    assert len(chunks) < len(weights)
    assert sum(chunks.values()) < 1.3 * sum(w.nbytes for w in weights)
