"""The settings of a run: frozen, checked when they are made. Section and field names are those of the TOML file.

Stages never see these objects: `engine/grpo.py` hands them scalars.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..choices import RANDOM
from .described import Section, plain, require
from .learning import GrpoSettings, OptimizerSettings, RewardSettings, different_labels
from .model import LoraSettings, ModelSettings
from .pictures import InitSettings, SamplingSettings
from .run import EvaluationSettings, RunSettings

__all__ = [
    "SECTIONS",
    "Config",
    "EvaluationSettings",
    "GrpoSettings",
    "InitSettings",
    "LoraSettings",
    "ModelSettings",
    "OptimizerSettings",
    "RewardSettings",
    "RunSettings",
    "SamplingSettings",
    "different_labels",
    "require",
]

SECTIONS: dict[str, type[Section]] = {
    cls.section: cls
    for cls in (
        ModelSettings,
        LoraSettings,
        SamplingSettings,
        GrpoSettings,
        OptimizerSettings,
        RunSettings,
        EvaluationSettings,
        InitSettings,
    )
}


@dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelSettings
    prompts: tuple[str, ...]
    rewards: tuple[RewardSettings, ...]
    lora: LoraSettings = field(default_factory=LoraSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    grpo: GrpoSettings = field(default_factory=GrpoSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: RunSettings = field(default_factory=RunSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    init: InitSettings = field(default_factory=InitSettings)
    holds: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # what paths hold, see `identity.identified`

    def __post_init__(self) -> None:
        require(len(self.prompts) > 0, "prompts", list(self.prompts), "at least one prompt is needed")
        require(
            self.grpo.trained_steps <= self.sampling.steps,
            "grpo.trained_steps",
            self.grpo.trained_steps,
            f"must be at most sampling.steps = {self.sampling.steps}",
        )
        some = self.grpo.step_choice != RANDOM and 0 < self.grpo.trained_steps < self.sampling.steps
        require(
            some or not self.grpo.hold,
            "grpo.hold",
            self.grpo.hold,
            'is for some steps alone: set grpo.step_choice to "early" or "late" and grpo.trained_steps to fewer than '
            f"sampling.steps = {self.sampling.steps}",
        )
        if len(self.init.image) > 1:
            count = len(self.prompts)
            paired = len(self.init.image) == count
            require(paired, "init.image", list(self.init.image), f"must be one, or one for each of {count} prompts")
        labels = different_labels(self.rewards)
        require(bool(self.weights), "rewards", labels, "at least one must be trained on (held_out = false)")
        require(all(self.weights.values()), "rewards.weight", self.weights, "must not be 0: use held_out = true")

    @property
    def trained_steps(self) -> int:
        """K: all T steps where `grpo.trained_steps` is 0."""
        return self.grpo.trained_steps or self.sampling.steps

    @property
    def updated_steps(self) -> int:
        """The steps that an update passes through: K, and the one that `grpo.hold` holds."""
        return self.trained_steps + (self.grpo.hold > 0)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the rewards that are trained on."""
        return {r.label: r.weight for r in self.rewards if not r.held_out}

    @property
    def held_out(self) -> list[str]:
        """The rewards that only watch."""
        return [r.label for r in self.rewards if r.held_out]

    @property
    def clips(self) -> dict[str, tuple[float, ...]]:
        """Bounds of the rewards that have some."""
        return {r.label: r.clip for r in self.rewards if r.clip}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as stored with a run."""
        known: dict[str, Any] = plain(self)
        return known if self.holds else {name: value for name, value in known.items() if name != "holds"}
