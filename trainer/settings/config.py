"""The settings of a run: frozen, checked when they are made. Section and field names are those of the TOML file.

Stages never see these objects: `engine/grpo.py` hands them scalars.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..choices import AUTO, NORMALISATIONS, OBJECTIVES, TEMPERATURE_MODES
from ..diagnosis import CHECKS
from ..errors import ConfigError
from ..models.families import FAMILIES
from ..models.flux1.geometry import Geometry
from ..plugins import is_own
from ..stages.solvers import SOLVERS

MEMORY = (AUTO, "bf16", "fp8", "nf4")
LORA_TARGETS = ("all-linear", "attention")  # presets
LORA_VARIANTS = ("lora", "rslora", "dora")
LORA_FORMATS = ("diffusers", "kohya")


def require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise ConfigError(f"{name} = {value!r}: {remedy}")


def one_of(name: str, value: str, choices: Collection[str]) -> None:
    require(value in choices, name, value, f"must be one of {', '.join(choices)}")


def known(names: Iterable[str]) -> str:
    """The remedy of a setting that names one of these, or a class of the user's own."""
    return f"must be one of {', '.join(names)}, or 'package.module:Class'"


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return bool(pattern)


@dataclass(frozen=True)
class ModelSettings:
    path: str  # "embedded", a diffusers folder, "hub:owner/name", or one file: .safetensors or .gguf
    family: str = AUTO  # which kind of model: "auto" is what the files say; or "package.module:Class" of one's own
    device: str = AUTO  # "auto" is CUDA where there is one
    dtype: str = AUTO  # "auto" is bfloat16 on CUDA and float32 on the CPU
    guidance: float = 3.5  # FLUX.1-dev's guidance embedding
    text_tokens: int | str = AUTO  # T5 tokens, padding included; "auto" is the model's: dev has 512, schnell 256
    vae: str = ""  # a file such as ae.safetensors; the model's own autoencoder where empty
    text_encoders: tuple[str, ...] = ()  # files of CLIP-L and T5-XXL, in any order; the model's own where empty
    memory: str = AUTO  # how the frozen weights are kept; "auto" is the first of bf16, fp8, fp8 + offload that fits
    offload: float = 0.0  # share of the blocks whose frozen weights wait in host memory
    compile: bool = False  # torch.compile for the blocks: the first iteration takes minutes, the others less
    checkpointing: bool = True  # the update keeps the blocks' inputs alone and computes the rest again

    def __post_init__(self) -> None:
        families = (AUTO, *FAMILIES)
        require(is_own(self.family) or self.family in families, "model.family", self.family, known(families))
        one_of("model.dtype", self.dtype, (AUTO, "float32", "bfloat16", "float16"))
        require(self.guidance >= 0, "model.guidance", self.guidance, "must be at least 0")
        tokens = self.text_tokens
        fits = tokens == AUTO or (not isinstance(tokens, str) and 1 <= tokens <= 512)
        require(fits, "model.text_tokens", tokens, "must be between 1 and 512, or 'auto'")
        one_of("model.memory", self.memory, MEMORY)
        require(0 <= self.offload <= 1, "model.offload", self.offload, "must be between 0 and 1")
        remedy = "compiled blocks need their weights on the device: use model.compile = false, or offload = 0"
        require(not (self.compile and self.offload), "model.offload", self.offload, remedy)
        only_resident = self.memory == "nf4" and self.offload
        require(
            not only_resident, "model.offload", self.offload, "4-bit weights stay on the device: use memory = 'fp8'"
        )


@dataclass(frozen=True)
class LoraSettings:
    rank: int = 16
    alpha: float = 16.0
    targets: str = "all-linear"  # or "attention", or a regular expression that matches whole module paths
    start: str = ""  # a LoRA file to go on from, under any name that ComfyUI accepts; empty starts from the base model
    variant: str = "lora"
    format: str = "diffusers"  # layout of the exported file

    def __post_init__(self) -> None:
        require(self.rank >= 1, "lora.rank", self.rank, "must be at least 1")
        require(self.alpha > 0, "lora.alpha", self.alpha, "must be above 0")
        remedy = f"must be {', '.join(LORA_TARGETS)} or a regular expression over module paths"
        require(_compiles(self.targets), "lora.targets", self.targets, remedy)
        one_of("lora.variant", self.variant, LORA_VARIANTS)
        one_of("lora.format", self.format, LORA_FORMATS)
        kept = (self.variant, self.format) != ("dora", "kohya")
        require(kept, "lora.format", self.format, "a DoRA is exported in the diffusers layout only")


@dataclass(frozen=True)
class SamplingSettings:
    width: int = 512  # pixels
    height: int = 512  # pixels
    steps: int = 8  # T
    solver: str = "dpm++2m"
    shift: float | str = AUTO  # time shift; "auto" is the model's: dev follows the resolution, schnell has 1
    # [width, height] of several sizes, in place of the two above: each iteration draws all of its prompts in one
    sizes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for size in self.sizes:
            require(len(size) == 2, "sampling.sizes", list(size), "must be [width, height] in pixels")
        require(len(set(self.sizes)) == len(self.sizes), "sampling.sizes", self.sizes, "each size once")
        for width, height in self.all_sizes:
            try:
                Geometry(width, height)
            except ValueError as error:
                raise ConfigError(f"sampling.{error}") from None
        require(self.steps >= 1, "sampling.steps", self.steps, "must be at least 1")
        require(is_own(self.solver) or self.solver in SOLVERS, "sampling.solver", self.solver, known(SOLVERS))
        positive = self.shift == AUTO or (not isinstance(self.shift, str) and self.shift > 0)
        require(positive, "sampling.shift", self.shift, "must be a number above 0, or 'auto'")

    @property
    def all_sizes(self) -> tuple[tuple[int, ...], ...]:
        """(width, height) of every size, pixels; the evaluation draws in the first."""
        return self.sizes or ((self.width, self.height),)

    @property
    def largest(self) -> tuple[int, ...]:
        """The size with the most pixels: what memory depends on."""
        return max(self.all_sizes, key=math.prod)


@dataclass(frozen=True)
class InitSettings:
    """What pictures begin from beside noise: image-to-image, inpainting where there is a mask, or what is edited."""

    image: tuple[str, ...] = ()  # files: one for all prompts, or one for each; cut to the run's size
    denoise: float = 1.0  # share of the way from noise to picture that is drawn; 1 ignores the picture but for the mask
    mask: str = ""  # a file of the pictures' size, white where they are drawn anew; empty draws all of them anew
    reference: bool = False  # the model sees the picture while it draws: for FLUX.1-Kontext
    digest: str = ""  # of the pixels, read from the files: a run goes on from the same pictures alone

    def __post_init__(self) -> None:
        require(0 < self.denoise <= 1, "init.denoise", self.denoise, "must be above 0 and at most 1")
        there = bool(self.image or self.digest)
        require(self.denoise == 1 or there, "init.denoise", self.denoise, "below 1 it needs init.image to begin from")
        require(not self.mask or there, "init.mask", self.mask, "needs init.image, which is kept outside of it")
        require(not self.reference or there, "init.reference", self.reference, "needs init.image, which is seen")


@dataclass(frozen=True)
class GrpoSettings:
    """Defaults are the paper's, but for `clip` and `temperature_mode`, which it leaves open."""

    objective: str = "neighbor"  # how rollouts become a loss; or "package.module:Class" of one's own
    prompts_per_iteration: int = 1  # P
    group_size: int = 12  # G
    strength: float = 0.3  # s
    anchors: int = 4  # B
    trained_steps: int = 4  # K
    quasi_norm: float = 0.8  # p
    clip: float = 0.2  # eps of the ratio
    temperature: float = 1.0
    temperature_mode: str = "scale-free"
    updates_per_rollout: int = 1
    kl_weight: float = 0.0  # of KL(policy || policy without the LoRA)
    reward_normalisation: str = "advantage"

    def __post_init__(self) -> None:
        named = is_own(self.objective) or self.objective in OBJECTIVES
        require(named, "grpo.objective", self.objective, known(OBJECTIVES))
        require(self.prompts_per_iteration >= 1, "grpo.prompts_per_iteration", self.prompts_per_iteration, "at least 1")
        require(self.group_size >= 2, "grpo.group_size", self.group_size, "must be at least 2: rewards are compared")
        require(0 < self.strength <= 1, "grpo.strength", self.strength, "must be above 0 and at most 1")
        require(
            1 <= self.anchors <= self.group_size,
            "grpo.anchors",
            self.anchors,
            f"must be between 1 and grpo.group_size = {self.group_size}",
        )
        require(self.trained_steps >= 1, "grpo.trained_steps", self.trained_steps, "must be at least 1")
        require(0 < self.quasi_norm <= 2, "grpo.quasi_norm", self.quasi_norm, "must be above 0 and at most 2")
        require(self.clip > 0, "grpo.clip", self.clip, "must be above 0")
        require(self.temperature > 0, "grpo.temperature", self.temperature, "must be above 0")
        one_of("grpo.temperature_mode", self.temperature_mode, TEMPERATURE_MODES)
        require(self.updates_per_rollout >= 1, "grpo.updates_per_rollout", self.updates_per_rollout, "at least 1")
        require(self.kl_weight >= 0, "grpo.kl_weight", self.kl_weight, "must be at least 0")
        one_of("grpo.reward_normalisation", self.reward_normalisation, NORMALISATIONS)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW on the LoRA."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_ratio: float = 4.0  # of a gradient's norm to the median of the last 50; a larger one is scaled down
    warmup: int = 0  # updates
    ema_decay: float = 0.0  # of the exported LoRA's average; 0 exports the weights themselves

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "must be above 0")
        require(self.max_grad_ratio >= 1, "optimizer.max_grad_ratio", self.max_grad_ratio, "must be at least 1")
        for name in ("beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "must be at least 0 and below 1")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "must be at least 0")
        require(self.warmup >= 0, "optimizer.warmup", self.warmup, "must be at least 0")


@dataclass(frozen=True)
class RewardSettings:
    kind: str
    name: str = ""  # in logs; the kind where empty
    weight: float = 1.0  # below 0 asks for less of it
    held_out: bool = False  # scored and logged, never trained on
    clip: tuple[float, ...] = ()  # (lowest, highest) score that counts in training; logged scores stay as they are
    options: Mapping[str, Any] = field(default_factory=dict)  # of the kind

    def __post_init__(self) -> None:
        bounds = len(self.clip) == 2 and self.clip[0] < self.clip[1]
        require(not self.clip or bounds, f"clip of the reward {self.label!r}", list(self.clip), "must be [low, high]")

    @property
    def label(self) -> str:
        return self.name or self.kind


def different_labels(rewards: Sequence[RewardSettings]) -> list[str]:
    """The rewards' labels, each of which must name one of them."""
    labels = [r.label for r in rewards]
    double = sorted({label for label in labels if labels.count(label) > 1})
    require(not double, "rewards.name", double, "each reward needs a name of its own")
    return labels


@dataclass(frozen=True)
class RunSettings:
    folder: str = ""  # runs/<name of the config file> where empty
    iterations: int = 300
    seed: int = 0
    micro_batch: int = 4  # candidates that go through the model at once, in rollout and update alike
    save_every: int = 10  # iterations between checkpoints
    tiles_every: int = 1  # iterations between stored pictures; 0 stores none
    offload_rewards: bool = False  # reward models wait in host memory while they do not score
    base_every: int = 10  # iterations between the base noises' own pictures, where pictures are stored; 0 draws none
    stop_on: tuple[str, ...] = ()  # findings of trainer/diagnosis that end the run

    def __post_init__(self) -> None:
        for name in ("iterations", "micro_batch", "save_every"):
            require(getattr(self, name) >= 1, f"run.{name}", getattr(self, name), "must be at least 1")
        for name in ("seed", "tiles_every", "base_every"):
            require(getattr(self, name) >= 0, f"run.{name}", getattr(self, name), "must be at least 0")
        for check in self.stop_on:
            one_of("run.stop_on", check, CHECKS)


@dataclass(frozen=True)
class EvaluationSettings:
    """Pictures of fixed prompts, to look at and to score: before the first iteration, after the last, and between."""

    prompts: tuple[str, ...] = ()  # none draws none; the same prompt twice draws two pictures
    every: int = 0  # iterations between them; 0 draws the first and the last alone

    def __post_init__(self) -> None:
        require(self.every >= 0, "evaluation.every", self.every, "must be at least 0")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelSettings
    prompts: tuple[str, ...]
    rewards: tuple[RewardSettings, ...]
    lora: LoraSettings = LoraSettings()
    sampling: SamplingSettings = SamplingSettings()
    grpo: GrpoSettings = GrpoSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    run: RunSettings = RunSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    init: InitSettings = InitSettings()

    def __post_init__(self) -> None:
        require(len(self.prompts) > 0, "prompts", list(self.prompts), "at least one prompt is needed")
        require(
            self.grpo.trained_steps <= self.sampling.steps,
            "grpo.trained_steps",
            self.grpo.trained_steps,
            f"must be at most sampling.steps = {self.sampling.steps}",
        )
        if len(self.init.image) > 1:
            count = len(self.prompts)
            paired = len(self.init.image) == count
            require(paired, "init.image", list(self.init.image), f"must be one, or one for each of {count} prompts")
        labels = different_labels(self.rewards)
        require(bool(self.weights), "rewards", labels, "at least one must be trained on (held_out = false)")
        require(all(self.weights.values()), "rewards.weight", self.weights, "must not be 0: use held_out = true")

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the rewards that are trained on."""
        return {r.label: r.weight for r in self.rewards if not r.held_out}

    @property
    def clips(self) -> dict[str, tuple[float, ...]]:
        """Bounds of the rewards that have some."""
        return {r.label: r.clip for r in self.rewards if r.clip}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as stored with a run."""
        return asdict(self)
