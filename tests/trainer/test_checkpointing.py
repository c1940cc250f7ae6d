"""Blocks that are computed again in the backward pass: the last products are not, and no gradient tells."""

import pytest
import torch
from small_step import GEOMETRY, small_flux
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.models.flux1 import checkpointing
from trainer.models.flux1.checkpointing import checkpoint_blocks
from trainer.models.flux1.conditions import conditioning
from trainer.models.flux1.lora_names import TARGETS
from trainer.models.flux1.policy import FluxPolicy
from trainer.models.lora.attach import attach_lora
from trainer.models.storage.memory import MemoryPlan, Storage

WIDE, HIDDEN = 32, 128  # numbers a token outside and inside the feed-forward layers
DOUBLE, SINGLE = 2, 3  # blocks


class Products(TorchDispatchMode):
    """Counts products by the sizes of their right factor."""

    def __init__(self):
        super().__init__()
        self.of = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm"):
            size = tuple(args[-1].shape)
            self.of[size] = self.of.get(size, 0) + 1
        return func(*args, **(kwargs or {}))


def gradients(targets="all-linear", plan=None, dtype=torch.float32, checkpointing=True, variant="lora"):
    """Of the LoRA, and the products of the backward pass."""
    transformer = small_flux().to(dtype)
    if plan:
        Storage(plan, device="cpu", dtype=dtype).store(transformer)
    lora = attach_lora(
        transformer, rank=2, alpha=2, targets=targets, presets=TARGETS, seed=0, variant=variant, dtype=dtype
    )
    policy = FluxPolicy(transformer, None, guidance=3.5, resolution_shift=True)
    if checkpointing:
        checkpoint_blocks(transformer)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in lora.values():
            p += 0.05 * torch.randn(p.shape, generator=g)
    told = conditioning(*(torch.randn(shape, generator=g).to(dtype) for shape in ((1, 5, 32), (1, 32))))
    x = torch.randn(1, GEOMETRY.tokens, 64, generator=g)
    velocity = policy.velocity(told, GEOMETRY)
    inputs = x, torch.tensor([0.5]), torch.tensor([0])
    v = velocity(*inputs)
    with Products() as products:
        v.square().sum().backward()
    assert torch.equal(velocity(*inputs), v)  # what was spared is computed the next time
    return {name: p.grad for name, p in lora.items()}, products.of


CASES = {
    "all": {},
    "8 bits": {"plan": MemoryPlan("fp8")},
    "8 bits offloaded": {"plan": MemoryPlan("fp8", 1)},
    "attention alone": {"targets": "attention", "plan": MemoryPlan("fp8")},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16, whose sums are clipped": {"dtype": torch.float16},
    "float16 between 8-bit layers": {"dtype": torch.float16, "targets": "attention", "plan": MemoryPlan("fp8")},
    "trained gates": {"targets": r".*(norm1?(_context)?\.linear|proj_out|net\.2)"},
    "trained times": {"targets": r"time_text_embed.*linear_1|.*(proj_out|net\.2)"},
    "lengths of rows": {"variant": "dora"},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_checkpointing_changes_no_bit_of_a_gradient(case):
    wanted, _ = gradients(checkpointing=False, **case)
    found, _ = gradients(**case)
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in wanted.values())
    for name, gradient in wanted.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize(("case", "again"), [("all", 0), ("8 bits", 0), ("attention alone", 0), ("trained gates", 1)])
def test_the_last_products_of_a_block_are_not_computed_again(case, again):
    """A forward pass multiplies by W^T, [in, out]; the backward pass by W, [out, in]."""
    _, products = gradients(**CASES[case])
    first = 2 * DOUBLE + SINGLE  # layers of a branch that widen: the backward pass multiplies by their W too
    assert products[HIDDEN, WIDE] == first + 2 * DOUBLE * again
    assert products.get((WIDE + HIDDEN, WIDE), 0) == SINGLE * again


def test_who_needs_a_spared_product_gets_no_number(monkeypatch):
    """What the gates' gradients would be, if nobody had asked."""
    monkeypatch.setattr(checkpointing, "_needs_all", lambda *_: False)
    found, _ = gradients(**CASES["trained gates"])
    assert any(g.isnan().any() for g in found.values())
