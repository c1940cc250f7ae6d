"""Settings of the device that a training changes, and gives back."""

from contextlib import suppress

import pytest
import torch

from trainer.device import tensor_cores


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
