"""What travels along the wires of a training graph, and the socket types of ComfyUI that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

if TYPE_CHECKING:
    from torch import Tensor

    from ..trainer.engine.grpo import Candidates
    from ..trainer.engine.state import Setup
    from ..trainer.models.conditioning import Conditioning
    from ..trainer.rewards.base import Reward
    from ..trainer.settings.config import GrpoSettings, OptimizerSettings, RewardSettings
    from .policies import Policy

CATEGORY = "Neighbor GRPO"

POLICY = io.Custom("NEIGHBOR_GRPO_POLICY")  # policies.Policy
PROMPTS = io.Custom("NEIGHBOR_GRPO_PROMPTS")
NEIGHBORHOOD = io.Custom("NEIGHBOR_GRPO_NEIGHBORHOOD")
TRAJECTORIES = io.Custom("NEIGHBOR_GRPO_TRAJECTORIES")
REWARD = io.Custom("NEIGHBOR_GRPO_REWARD")
SCORES = io.Custom("NEIGHBOR_GRPO_SCORES")
SETTINGS = io.Custom("NEIGHBOR_GRPO_SETTINGS")
RUN = io.Custom("NEIGHBOR_GRPO_RUN")
LORA = io.Custom("LORA_MODEL")  # ComfyUI's own: its "Load LoRA Model" and "Save LoRA Weights" take it


@dataclass(frozen=True)
class Prompts:
    """n captions and their embeddings."""

    texts: tuple[str, ...]
    conditioning: Conditioning


@dataclass(frozen=True)
class Neighborhood:
    """Stage 1, before any prompt: what noises will be drawn."""

    seed: int
    strength: float  # s
    group_size: int  # G
    width: int  # pixels
    height: int  # pixels
    more_sizes: tuple[tuple[int, int], ...] = ()  # (width, height) of others, which iterations take in turn

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All sizes if there are several."""
        return ((self.width, self.height), *self.more_sizes) if self.more_sizes else ()


@dataclass(frozen=True, eq=False)
class RolledOut:
    """The candidates of some prompts, and the policy that drew them, as it was then."""

    policy: Policy
    version: int  # of the policy
    setup: Setup
    candidates: Candidates

    @property
    def texts(self) -> list[str]:
        """The prompt of each candidate, [P * G]."""
        return self.candidates.texts(self.setup.config)


@dataclass(frozen=True)
class NamedReward:
    """One reward, built, with its weight and role."""

    settings: RewardSettings
    reward: Reward


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores [P, G] of the candidates of one rollout."""

    of: RolledOut
    scores: Mapping[str, Tensor]
    rewards: tuple[RewardSettings, ...]


@dataclass(frozen=True)
class Settings:
    """Everything about the update that rarely needs a change."""

    grpo: GrpoSettings
    optimizer: OptimizerSettings


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    folder: Path


class LoraFile(dict[str, "Tensor"]):
    """ComfyUI's LORA_MODEL, a flat dict of tensors, that also knows what its file should say about it."""

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]):
        super().__init__(tensors)
        self.metadata = dict(metadata)
