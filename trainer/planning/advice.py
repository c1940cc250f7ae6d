"""Which memory plan fits a card, what to lower if none does, and what an iteration costs."""

from dataclasses import dataclass

from ..models.flux1.geometry import PIXELS_PER_TOKEN
from ..models.storage.memory import MemoryPlan
from ..settings.config import Config
from ..stages.solvers import solver_of

GIB = 2**30
# what the count of tensors does not see: the CUDA context, libraries' workspaces, the allocator's fragmentation
RESERVE = 1.0  # GiB
SMALLEST, LOWER_RANK, FEWER_TOKENS = 512, 16, 256
SDE_EVALUATIONS = 14  # trained model evaluations a sample of the SDE methods that the paper compares with


@dataclass(frozen=True)
class Cost:
    """Transformer evaluations of an iteration."""

    rollout: int  # forward
    update: int  # forward and backward
    recomputed: int  # forward once more, under checkpointing
    reference: int  # forward without the LoRA, if `kl_weight` or `hold` asks for it
    per_sample: float  # trained evaluations a sample, B K / G
    sde_update: int  # what the update of an SDE method would take


def cost(config: Config) -> Cost:
    """An iteration's evaluations: P G of the solver's in the rollout, P B K pairs in each update, and P B held ones."""
    grpo = config.grpo
    samples = grpo.prompts_per_iteration * grpo.group_size
    once = grpo.prompts_per_iteration * grpo.anchors * config.updated_steps
    pairs = once * grpo.updates_per_rollout
    spared = once if config.model.keep_inputs is True else 0  # the first update's forward passes are the rollout's
    return Cost(
        rollout=samples * solver_of(config.sampling.solver).evaluations(config.sampling.steps),
        update=pairs,
        recomputed=pairs - spared if config.model.checkpointing else 0,
        reference=pairs if grpo.kl_weight or grpo.hold else 0,
        per_sample=pairs / samples,
        sde_update=samples * SDE_EVALUATIONS * grpo.updates_per_rollout,
    )


def candidates(config: Config) -> list[MemoryPlan]:
    """The plans worth a look, from the fastest to the smallest; the config's own share of offload is one."""
    shares = {config.model.offload, 1.0} - {0.0}
    return [MemoryPlan("bf16"), MemoryPlan("fp8"), *(MemoryPlan("fp8", share) for share in sorted(shares))]


def title(plan: MemoryPlan) -> str:
    return f"{plan.precision} + offload {plan.offload:g}" if plan.offload else plan.precision


def fits(peak: float, vram: float) -> bool:
    """Whether a peak in bytes and the reserve go into `vram` GiB."""
    return peak / GIB + RESERVE <= vram


def lower(config: Config, plans: bool = True) -> str:
    """What to change for less memory, in the order of what it costs the training; counts nothing.

    Args:
        plans: whether another memory plan is an answer; not if all of them have been found too large.
    """
    model, sampling, run = config.model, config.sampling, config.run
    steps = []
    if run.micro_batch > 1:
        steps.append(f"run.micro_batch = {run.micro_batch // 2} (now {run.micro_batch})")
    if run.drawn_at_once > run.micro_batch:
        steps.append(f"run.rollout_batch = {run.micro_batch} (now {run.rollout_batch})")
    if not run.offload_rewards:
        steps.append("run.offload_rewards = true")
    if not model.checkpointing:
        steps.append("model.checkpointing = true")
    if plans and model.memory != "fp8":
        steps.append(f"model.memory = 'fp8' (now {model.memory!r})")
    if plans and model.offload < 1:
        steps.append(f"model.memory = 'fp8' with model.offload = 1.0 (now {model.offload:g})")
    tokens = model.text_tokens
    if not isinstance(tokens, str) and tokens > FEWER_TOKENS:
        steps.append(f"model.text_tokens = {FEWER_TOKENS} (now {tokens})")
    width, height = sampling.largest
    if max(width, height) > SMALLEST:
        smaller = "sampling.width = {}, height = {}" if not sampling.sizes else "sampling.sizes of at most {} x {}"
        steps.append(f"{smaller.format(_smaller(width), _smaller(height))} (now {width} x {height})")
    if config.lora.rank > LOWER_RANK:
        steps.append(f"lora.rank = {LOWER_RANK} (now {config.lora.rank})")
    if config.lora.targets != "attention":
        steps.append(f"lora.targets = 'attention' (now {config.lora.targets!r})")
    return "; then ".join(steps) or "nothing is left to lower: a larger card is needed"


def _smaller(pixels: int) -> int:
    """Three quarters of it, as a size that FLUX takes."""
    return max(PIXELS_PER_TOKEN, pixels * 3 // 4 // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN)
