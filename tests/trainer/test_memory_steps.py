"""A step of training under every memory plan: the same bits, and every weight on the device that computes."""

from itertools import chain

import pytest
import torch
from small_step import GEOMETRY, assert_equal_steps, policy_of, step
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.models.flux1.checkpointing import checkpoint_blocks
from trainer.models.flux1.conditions import conditioning
from trainer.models.storage.frozen import FrozenLinear
from trainer.models.storage.memory import MemoryPlan

PLANS = [MemoryPlan(), MemoryPlan("bf16", 0.5), MemoryPlan("bf16", 1), MemoryPlan("fp8"), MemoryPlan("fp8", 0.6)]


class OneDevice(TorchDispatchMode):
    """Refuses operations on two devices but for copies, as a GPU does. meta alone lets products pass."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in chain(args, (kwargs or {}).values()) if isinstance(x, torch.Tensor) and x.ndim]
        copies = ("copy_", "_to_copy", "empty_like")
        if func.overloadpacket.__name__ not in copies and len({t.device.type for t in tensors}) > 1:
            raise RuntimeError(f"{func} on meta and another device")
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def resident():
    """Steps with nothing offloaded, by precision."""
    return {"bf16": step(None), "fp8": step(MemoryPlan("fp8"))}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("plan", PLANS[1:], ids=str)
def test_offload_and_checkpointing_change_no_bit_of_a_step(plan, checkpointing, resident):
    assert any(g.abs().sum() > 0 for g in resident[plan.precision].gradients.values())
    assert_equal_steps(step(plan, checkpointing=checkpointing), resident[plan.precision])


def test_checkpointing_alone_changes_no_bit_and_is_off_in_rollouts(resident, monkeypatch):
    assert_equal_steps(step(None, checkpointing=True), resident["bf16"])
    policy, _ = policy_of(None)
    checkpoint_blocks(policy.network)
    kept = []
    monkeypatch.setattr(policy.network, "_gradient_checkpointing_func", lambda f, *args: (kept.append(f), f(*args))[1])
    velocity = policy.velocity(conditioning(torch.zeros(1, 5, 32), torch.zeros(1, 32)), GEOMETRY)
    inputs = torch.zeros(1, GEOMETRY.tokens, 64), torch.tensor([0.5]), torch.tensor([0])
    with torch.no_grad():
        velocity(*inputs)
    assert kept == []
    velocity(*inputs)
    assert len(kept) == 5


@pytest.mark.parametrize(
    ("plan", "checkpointing"), [*((plan, True) for plan in PLANS), (PLANS[2], False), (PLANS[4], False)], ids=str
)
def test_every_weight_is_brought_to_the_device_that_computes(plan, checkpointing):
    """meta computes and the CPU stores: an operation on both raises, in rollout, backward pass or recomputation."""
    with OneDevice():
        done = step(plan, device="meta", checkpointing=checkpointing)
    everything = [done.trajectories.x_0, *done.gradients.values(), *done.weights.values()]
    assert {t.device.type for t in everything} == {"meta"}
    assert done.policy.device.type == "meta"
    assert done.policy.dtype == torch.float32
    frozen = [p for p in done.policy.network.parameters() if not p.requires_grad]
    assert ("cpu" in {p.device.type for p in frozen}) == (plan.offload > 0)
    assert {p.dtype for p in done.weights.values()} == {torch.float32}


def test_a_weight_that_is_not_fetched_is_noticed(monkeypatch):
    monkeypatch.setattr(FrozenLinear, "widened", lambda self, dtype, backward: self.weight)
    with OneDevice(), pytest.raises(RuntimeError, match="meta"):
        step(MemoryPlan("bf16", 0.5), device="meta")
