"""A layer and its LoRA in one function: peft's numbers in fewer kernels, and no stale A or B."""

import gc
import weakref
from copy import deepcopy

import pytest
import torch
from peft.tuners import lora as peft_lora
from small_step import small_flux
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.models.lora.attach import activate_lora, attach_lora, enable_loras, lora_layers, set_weights
from trainer.models.lora.fused import FusedLora
from trainer.models.storage.frozen import FrozenLinear
from trainer.models.storage.memory import MemoryPlan, Storage
from trainer.stages.update import GradientHistory, make_optimizer, step_optimizer

MODULE = "transformer_blocks.0.attn.to_q"
WIDE, RANK, SCALE = 32, 4, 1.5
PLANS = [MemoryPlan(), MemoryPlan("bf16", 1), MemoryPlan("fp8"), MemoryPlan("fp8", 1)]


@pytest.fixture(scope="module")
def base():
    return small_flux()


def adapted(base, dtype=torch.float32, plan=None, variant="lora"):
    """A layer with a LoRA of random weights, and its A and B."""
    network = deepcopy(base).to(dtype)
    if plan:
        Storage(plan, device="cpu", dtype=dtype).store(network)
    found = attach_lora(network, rank=RANK, alpha=RANK * SCALE, targets=MODULE, seed=0, variant=variant, dtype=dtype)
    g = torch.Generator().manual_seed(3)
    set_weights(found, {n: p if p.ndim == 1 else 0.3 * torch.randn(p.shape, generator=g) for n, p in found.items()})
    return network.get_submodule(MODULE), list(found.values())


def inputs(dtype=torch.float32, *shape):
    g = torch.Generator().manual_seed(4)
    x, upstream = (torch.randn(shape or (3, 5, WIDE), generator=g).to(dtype) for _ in range(2))
    return x.requires_grad_(), upstream


def results(forward, x, halves, upstream):
    """Output, and the gradients of x, A and B."""
    y = forward(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *halves], upstream)]


def by_peft(layer):
    return lambda x: peft_lora.Linear.forward(layer, x)


class Operations(TorchDispatchMode):
    """Names of the kernels that compute something."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_float32_gives_what_peft_gives(base, plan):
    layer, halves = adapted(base, plan=plan)
    assert type(layer) is FusedLora
    x, upstream = inputs()
    for found, wanted in zip(
        results(layer, x, halves, upstream), results(by_peft(layer), x, halves, upstream), strict=True
    ):
        assert found.shape == wanted.shape
        assert (found - wanted).norm() <= 1e-6 * wanted.norm()


def exact(layer, halves):
    w, b = (t.detach().double() for t in (layer.base_layer.weight, layer.base_layer.bias))
    return lambda x: x @ (w + SCALE * halves[1] @ halves[0]).T + b


def test_bfloat16_is_as_near_to_the_truth_as_peft(base):
    layer, halves = adapted(base, torch.bfloat16)
    x, upstream = inputs(torch.bfloat16, 64, WIDE)
    wide = [h.detach().double().requires_grad_() for h in halves]
    truth = results(exact(layer, wide), x.detach().double().requires_grad_(), wide, upstream.double())
    ours, pefts = results(layer, x, halves, upstream), results(by_peft(layer), x, halves, upstream)
    assert [t.dtype for t in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for found, other, wanted in zip(ours, pefts, truth, strict=True):
        error, others = ((t.double() - wanted).norm() / wanted.norm() for t in (found, other))
        assert error <= 1.05 * others
        assert error <= 2**-8  # bfloat16 rounds to 2^-9


def test_a_slice_of_a_longer_sequence_is_taken_as_it_lies(base):
    layer, halves = adapted(base)
    x, upstream = inputs()
    longer = torch.cat([x.detach(), x.detach()], 1).requires_grad_()
    found = results(lambda x: layer(x[:, :5]), longer, halves, upstream)
    for one, other in zip(found[2:], results(layer, x, halves, upstream)[2:], strict=True):
        torch.testing.assert_close(one, other)
    assert found[1][:, 5:].eq(0).all()


def test_autograd_keeps_the_input_and_what_of_it_is_within_the_lora(base):
    layer, _ = adapted(base, torch.bfloat16)
    saved = []
    x, _ = inputs(torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x)
    kept = [t for t in saved if t.shape not in ((RANK, WIDE), (WIDE, RANK))]  # A and B, which are kept anyway
    assert [(tuple(t.shape), t.dtype) for t in kept] == [((3, 5, WIDE), x.dtype), ((15, RANK), x.dtype)]
    assert kept[0].data_ptr() == x.data_ptr()


def test_three_products_and_nothing_else(base):
    layer, _ = adapted(base, torch.bfloat16)
    x, _ = inputs(torch.bfloat16)
    counts = []
    for forward in (layer, layer, by_peft(layer)):
        with Operations() as operations:
            forward(x)
        counts.append(sorted(operations.names))
    assert counts[1] == ["addmm", "addmm_", "mm"]
    assert counts[0] == sorted([*counts[1], "_to_copy", "_to_copy"])
    assert len(counts[2]) >= 7


def test_an_input_without_gradient_needs_no_product_with_w(base):
    layer, halves = adapted(base, plan=MemoryPlan("fp8"))
    x, upstream = inputs()
    y = layer(x.detach())
    with Operations() as operations:
        found = torch.autograd.grad(y, halves, upstream)
    assert operations.names.count("mm") == 3
    for one, other in zip(found, results(layer, x, halves, upstream)[2:], strict=True):
        assert torch.equal(one, other)


def changes(layer, halves):
    """Every way in which A and B come to other values."""

    def step():
        for p in halves:
            p.grad = torch.ones_like(p)
        make_optimizer(halves, lr=0.1, betas=(0.9, 0.99), weight_decay=0.0).step()

    def fused():
        """A kernel that writes without telling."""
        for p in halves:
            p.grad = torch.ones_like(p)
        step_optimizer(torch.optim.AdamW(halves, fused=True), GradientHistory(), max_ratio=4, lr=0.1)

    def write():
        with torch.no_grad():
            for p in halves:
                p += 0.1

    def another():
        for half, p in zip((layer.lora_A, layer.lora_B), halves, strict=True):
            copy = torch.nn.Parameter(p.detach() + 0.1)
            assert copy._version == 0
            next(iter(half.values())).weight = copy

    return {"step": step, "fused": fused, "write": write, "another": another}


@pytest.mark.parametrize("how", ["step", "fused", "write", "another"])
def test_rounded_weights_are_never_stale(base, how):
    layer, halves = adapted(base, torch.bfloat16)
    if how == "another":  # as young as the next ones
        changes(layer, halves)["another"]()
        halves = [next(iter(half.values())).weight for half in (layer.lora_A, layer.lora_B)]
    x, upstream = inputs(torch.bfloat16)
    layer(x)
    changes(layer, halves)[how]()
    halves = [next(iter(half.values())).weight for half in (layer.lora_A, layer.lora_B)]
    for found, wanted in zip(
        results(layer, x, halves, upstream), results(by_peft(layer), x, halves, upstream), strict=True
    ):
        assert (found - wanted).float().norm() <= 2**-7 * wanted.float().norm()


def test_a_rollout_in_inference_mode_leaves_copies_that_train(base):
    layer, halves = adapted(base, torch.bfloat16)
    x, upstream = inputs(torch.bfloat16)
    with torch.inference_mode():
        layer(x.detach())
    assert all(g.abs().sum() > 0 for g in results(layer, x, halves, upstream))


def test_moved_layers_keep_no_copies_where_they_were(base):
    layer, _ = adapted(base, torch.bfloat16)
    layer(inputs(torch.bfloat16)[0])
    assert layer._rounded
    layer.to("meta")
    assert not layer._rounded


def test_a_lora_that_is_detached_leaves_nothing(base):
    layer, halves = adapted(base, torch.bfloat16)
    layer(inputs(torch.bfloat16)[0])
    layer.delete_adapter("neighbor_grpo")
    gone = [weakref.ref(p) for p in halves]
    halves.clear()
    gc.collect()
    assert not any(reference() for reference in gone)


def test_switched_off_it_is_the_base_model_bit_for_bit(base):
    layer, _ = adapted(base, plan=MemoryPlan("fp8"))
    x, _ = inputs()
    with_lora = layer(x)
    enable_loras(layer, False)
    assert torch.equal(layer(x), layer.base_layer(x))
    enable_loras(layer, True)
    assert torch.equal(layer(x), with_lora)


def test_a_second_lora_is_used_in_its_turn(base):
    network = deepcopy(base)
    for adapter, seed in (("one", 1), ("two", 2)):
        found = attach_lora(network, rank=RANK, alpha=RANK, targets=MODULE, seed=seed, adapter=adapter)
        g = torch.Generator().manual_seed(seed)
        set_weights(found, {n: torch.randn(p.shape, generator=g) for n, p in found.items()})
    layer = lora_layers(network)[MODULE]
    x, _ = inputs()
    for adapter in ("one", "two", "one"):
        activate_lora(network, adapter)
        torch.testing.assert_close(layer(x), by_peft(layer)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "variant"), [(torch.float16, "lora"), (torch.float32, "dora")])
def test_what_is_not_plain_takes_pefts_way(base, dtype, variant):
    layer, _ = adapted(base, dtype, variant=variant)
    assert isinstance(layer, FusedLora)
    x, _ = inputs(dtype)
    assert torch.equal(layer(x), by_peft(layer)(x))
    assert not layer._rounded


def test_the_frozen_layer_learns_nothing(base):
    layer, halves = adapted(base, plan=MemoryPlan("fp8"))
    layer(inputs()[0]).sum().backward()
    assert isinstance(layer.base_layer, FrozenLinear)
    assert {p for p in layer.parameters() if p.grad is not None} == set(halves)
