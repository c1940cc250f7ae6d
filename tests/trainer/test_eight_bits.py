"""8-bit weights: widened by one kernel, multiplied as they are, and by torch alone where neither works."""

import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F
from small_step import policy_of

from trainer import device as devices
from trainer.engine.setup import placement_of
from trainer.errors import ConfigError
from trainer.models.storage import eight_bits, trial
from trainer.models.storage.eight_bits import FLOAT8, can_multiply, multiply, quantise, widen
from trainer.models.storage.frozen import FrozenLinear
from trainer.models.storage.memory import MemoryPlan, Storage
from trainer.settings.config_file import load_config
from trainer.settings.model import ModelSettings

OUT, IN = 48, 64
CPU = torch.device("cpu")
SCALES = {
    "none": None,
    "a tensor's": torch.tensor(0.37),
    "a tensor's, as a list": torch.tensor([0.37]),
    "a tensor's, for each row": torch.tensor([0.37]).expand(2, 1),
    "a row's": torch.tensor([[0.1], [3.3]]),
}
multiplies = pytest.mark.skipif(not devices.multiplies_eight_bits("cpu"), reason="no 8-bit product on this CPU")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def kernels(monkeypatch):
    """Triton's kernels by its interpreter, which rounds no bfloat16: numbers are compared in float32."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read where kernels are made
    spec = importlib.util.find_spec("trainer.models.storage.kernels")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", [torch.int8, *FLOAT8], ids=str)
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_kernel_widens_every_byte_as_torch_does(kernels, kind, scale):
    every = torch.arange(256).to(torch.uint8).view(torch.int8).view(2, 128).repeat(1, 20)[:, : kernels.BLOCK + 100]
    stored = every.view(kind)
    wanted = stored.float() if scale is None else stored.float() * scale
    found = kernels.widened(stored, scale, torch.float32)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


def test_layers_use_the_kernel_where_it_runs(kernels, monkeypatch):
    monkeypatch.setattr(eight_bits, "_one_kernel", lambda device: True)
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    asked, original = [], kernels.widened
    monkeypatch.setattr(kernels, "widened", lambda *args: asked.append(args) or original(*args))
    stored, scale = quantise(random(OUT, IN))
    assert torch.equal(widen(stored, scale, torch.float32), stored.float() * scale)
    assert widen(random(OUT, IN), None, torch.bfloat16).dtype == torch.bfloat16
    assert len(asked) == 1


def test_a_triton_that_does_not_work_is_told_once(monkeypatch, caplog):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(trial, "kernels_by_triton", lambda device: True)  # not on the CPU
    eight_bits._one_kernel.cache_clear()
    stored, scale = quantise(random(OUT, IN))
    for _ in range(2):
        assert torch.equal(widen(stored, scale, torch.float32), stored.float() * scale)
    eight_bits._one_kernel.cache_clear()
    (record,) = caplog.records
    assert "Triton does not work here" in record.message


def test_triton_is_asked_for_gpus_alone(monkeypatch):
    monkeypatch.setattr(devices, "find_spec", lambda name: name)
    assert [devices.kernels_by_triton(d) for d in ("cuda:1", "xpu", "cpu", "meta")] == [True, True, False, False]
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    assert not devices.kernels_by_triton("cuda")


@multiplies
@pytest.mark.parametrize("scale", ["rows", "whole", None])
def test_a_product_in_8_bits_loses_what_8_bits_lose(scale):
    stored, of_rows = quantise(random(OUT, IN))
    known = {"rows": of_rows, "whole": torch.tensor(0.01), None: None}[scale]
    bias = random(OUT, seed=1).bfloat16()
    x = random(3, 5, IN, seed=2).bfloat16() * torch.logspace(-3, 3, 5, dtype=torch.bfloat16)[:, None]
    x[1, 1] = 0
    wide = stored.double() if known is None else stored.double() * known
    wanted = x.double() @ wide.T
    found = multiply(x, stored, known, bias)
    assert found.dtype == torch.bfloat16
    exact_bias = multiply(torch.zeros_like(x), stored, known, bias)
    assert torch.equal(exact_bias, bias.expand_as(found))
    without = multiply(x, stored, known, None).double()
    errors = (without - wanted).norm(dim=-1) / wanted.norm(dim=-1).clamp(min=1e-30)
    assert errors.max() <= 0.04  # each number is off by a 16th at most, at random
    assert torch.equal(without[1, 1], torch.zeros(OUT).double())


@multiplies
def test_rows_do_not_depend_on_their_neighbours():
    """Else rollout and update, which have other rows at once, would compute other velocities."""
    stored, scale = quantise(random(OUT, IN))
    x = random(6, IN, seed=2).bfloat16() * torch.logspace(-2, 2, 6, dtype=torch.bfloat16)[:, None]
    together = multiply(x, stored, scale, None)
    alone = torch.cat([multiply(row, stored, scale, None) for row in x.split(1)])
    torch.testing.assert_close(alone, together, rtol=2**-7, atol=0)


def test_what_the_hardware_does_not_take_is_widened():
    fp8, other = quantise(random(OUT, IN))[0], random(OUT, IN).to(torch.float8_e5m2)
    assert can_multiply(fp8, torch.bfloat16)
    odd = (fp8[:, :40], fp8[:40], other, fp8.view(torch.int8))
    assert not any(can_multiply(weight, torch.bfloat16) for weight in odd)
    assert not can_multiply(fp8, torch.float32)


@multiplies
def test_a_layer_multiplies_in_8_bits_and_returns_the_widened_gradient():
    stored, scale = quantise(random(OUT, IN))
    layer = FrozenLinear(IN, OUT, bias=False, in_8_bits=True)
    layer.store_weight(stored, scale, CPU)
    x = random(3, IN, seed=2).bfloat16().requires_grad_()
    upstream = random(3, OUT, seed=3).bfloat16()
    y = layer(x)
    y.backward(upstream)
    assert torch.equal(y, multiply(x.detach(), stored, scale, None))
    wide = (stored.float() * scale).bfloat16()
    assert not torch.equal(y, F.linear(x, wide))
    assert torch.equal(x.grad, upstream @ wide)


@multiplies
def test_a_model_in_8_bits_is_near_the_widened_one():
    velocities = []
    for in_8_bits in (False, True):
        network = policy_of(None)[0].network.bfloat16()
        Storage(MemoryPlan("fp8"), device="cpu", dtype=torch.bfloat16, in_8_bits=in_8_bits).store(network)
        layers = [m for m in network.modules() if isinstance(m, FrozenLinear)]
        x = random(2, 32, seed=4).bfloat16()
        velocities.append(torch.cat([layer(x) for layer in layers if layer.in_features == 32], -1).float())
    widened, multiplied = velocities
    assert 0 < (multiplied - widened).norm() / widened.norm() < 0.04


def test_8_bit_products_want_8_bit_weights():
    with pytest.raises(ConfigError, match=r"model.matmul = 'fp8': needs memory = 'fp8'"):
        ModelSettings("embedded", matmul="fp8")


def test_a_device_that_cannot_multiply_in_8_bits_is_told_in_one_line(config_file, monkeypatch):
    settings = ["model.matmul=fp8", "model.memory=fp8", "model.dtype=bfloat16"]
    config = load_config(config_file(), settings)
    monkeypatch.setattr("trainer.engine.setup.multiplies_eight_bits", lambda device: True)
    assert placement_of(config).in_8_bits
    with pytest.raises(ConfigError, match=r"needs model\.dtype = 'bfloat16', it is float32"):
        placement_of(load_config(config_file(), [*settings, "model.dtype=float32"]))
    monkeypatch.setattr("trainer.engine.setup.multiplies_eight_bits", lambda device: False)
    with pytest.raises(ConfigError, match="does not multiply in 8 bits"):
        placement_of(config)


def test_the_device_is_asked_by_a_product(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("requires compute capability >= 8.9")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    assert not devices.multiplies_eight_bits("cpu")
