"""Settings of the device that a training changes, and gives back."""

from contextlib import suppress

import pytest
import torch
from torch.cuda._utils import _get_device_index

from trainer.device import (
    allocated_memory,
    computes_bfloat16,
    free_memory,
    is_out_of_memory,
    peak_memory,
    pick_device,
    release,
    streams_of,
    synchronize,
    tensor_cores,
    training_on,
    without_spilling,
)
from trainer.errors import ConfigError


@pytest.mark.parametrize(("device", "inside"), [("cuda", "high"), ("cpu", "highest")])
def test_float32_products_use_tensor_cores_on_cuda_and_while_training_alone(device, inside):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with suppress(ZeroDivisionError), tensor_cores(torch.device(device)):
            assert torch.get_float32_matmul_precision() == inside
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x3)"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised_whoever_says_it(error, full):
    assert is_out_of_memory(error) is full


def test_the_cpu_counts_no_memory_has_no_streams_and_is_always_done():
    assert free_memory("cpu") is None
    assert peak_memory("cpu") == {}
    assert allocated_memory("cpu") == 0
    assert streams_of("cpu") is streams_of("meta") is None
    assert not computes_bfloat16("cpu")
    synchronize("cpu")
    release("cpu")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nonsense", "not a torch device"),
        ("xpu:1", "torch sees no such device"),
        ("mps", "advantages need float64, which Apple's GPUs lack"),
    ],
)
def test_a_device_that_cannot_train_is_refused_in_one_line(name, reason):
    with pytest.raises(ConfigError, match=reason) as refused:
        pick_device(name)
    assert repr(name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_device_whose_number_is_not_there_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in ("cuda", "cuda:0", "cuda:1", "cpu:3")] == ["cuda", "cuda:0", "cuda:1", "cpu"]
    with pytest.raises(
        ConfigError, match="'cuda:7': torch sees no device of this number; there is cuda:0, cuda:1, cpu"
    ):
        pick_device("cuda:7")


class Windows:
    """What torch.cuda has of it, and the fractions that were set."""

    def __init__(self):
        self.set = []
        self.mem_get_info = lambda device: (6, 16)
        self.memory_reserved = lambda device: 2

    def set_per_process_memory_fraction(self, fraction, device=None):
        if device is not None:
            _get_device_index(device)  # as torch.cuda does: it refuses "cuda" without a number
        self.set.append(fraction)


@pytest.mark.parametrize("inside", [without_spilling, training_on])
@pytest.mark.parametrize(("system", "expected"), [("win32", [0.5, 1.0]), ("linux", [])])
def test_memory_does_not_spill_into_the_host_on_windows_while_training(monkeypatch, system, expected, inside):
    module = Windows()
    monkeypatch.setattr("trainer.device.module_of", lambda device: module)
    monkeypatch.setattr("sys.platform", system)
    with suppress(ZeroDivisionError), inside("cuda"):
        assert module.set == expected[:1]
        raise ZeroDivisionError
    assert module.set == expected
