"""A small FLUX of several blocks, and one step of training on it: rollout, gradient, update."""

from dataclasses import dataclass

import torch
from diffusers import FluxTransformer2DModel
from leaping import accumulate_gradient
from torch import Tensor, nn

from trainer.models.flux1.checkpointing import checkpoint_blocks
from trainer.models.flux1.conditions import conditioning
from trainer.models.flux1.geometry import Geometry
from trainer.models.flux1.lora_names import TARGETS
from trainer.models.flux1.policy import FluxPolicy
from trainer.models.lora.attach import attach_lora
from trainer.models.storage.memory import MemoryPlan, Storage
from trainer.stages.anchors import Pairs
from trainer.stages.rollout import Trajectories, micro_batched, rollout
from trainer.stages.schedule import sigma_grid
from trainer.stages.solvers import SOLVERS
from trainer.stages.update import make_optimizer

GEOMETRY = Geometry(64, 64)
N, ROWS = 3, 2  # trajectories of one prompt, and how many go through the model at once


def small_flux() -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    ).eval()


@dataclass
class Step:
    """Everything that a step computes."""

    trajectories: Trajectories
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]  # of the LoRA, after the update
    policy: FluxPolicy
    velocity: object


def policy_of(plan: MemoryPlan | None, device: str = "cpu") -> tuple[FluxPolicy, dict[str, nn.Parameter]]:
    """The small FLUX stored by a plan, with a LoRA that does something."""
    transformer = small_flux()
    if plan:
        Storage(plan, device=device, dtype=torch.float32).store(transformer)
    policy = FluxPolicy(transformer, None, guidance=3.5, resolution_shift=True)
    lora = attach_lora(
        transformer, rank=2, alpha=2, targets="all-linear", presets=TARGETS, seed=0, device=policy.device
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in lora.values():
            p += (0.05 * torch.randn(p.shape, generator=generator)).to(p.device)
    return policy, lora


def step(plan: MemoryPlan | None, *, device: str = "cpu", checkpointing: bool = False) -> Step:
    """One step on `device`, without a plan or with the weights stored by one."""
    policy, lora = policy_of(plan, device)
    if checkpointing:
        checkpoint_blocks(policy.network)
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    told = conditioning(random(1, 5, 32), random(1, 32))
    velocity = micro_batched(policy.velocity(told, GEOMETRY), ROWS)
    rows = torch.zeros(N, dtype=torch.int64, device=device)
    kept = rollout(velocity, random(N, GEOMETRY.tokens, 64), rows, sigma_grid(3, 1.5), SOLVERS["dpm++2m"], (0, 1))
    pairs = Pairs(*torch.tensor([[0, 0, 0], [0, 1, 2], [0, 1, 1]], device=device))
    accumulate_gradient(
        velocity,
        kept,
        pairs,
        torch.tensor([[1.0, -0.5, -0.5]], device=device),
        torch.ones(2, 1, device=device),
        clip=0.2,
        micro_batch=ROWS,
        normaliser=len(pairs.prompt),
    )
    gradients = {name: p.grad.clone() for name, p in lora.items()}
    make_optimizer(list(lora.values()), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0).step()
    return Step(kept, gradients, {name: p.detach() for name, p in lora.items()}, policy, velocity)


def assert_equal_steps(first: Step, second: Step) -> None:
    for name in ("x_0", "x", "v", "x_next"):
        assert torch.equal(getattr(first.trajectories, name), getattr(second.trajectories, name)), name
    for name in ("gradients", "weights"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
