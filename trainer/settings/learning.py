"""How the scores of candidates become an update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..choices import (
    CLIP,
    DISTANCES,
    GROUP,
    GUARDS,
    NEXT,
    NORMALISATIONS,
    OBJECTIVES,
    PAIRINGS,
    POLICY,
    RANDOM,
    RIVALS,
    SPREADS,
    STEP_CHOICES,
    STRATIFIED,
    TEMPERATURE_MODES,
    TRUSTS,
)
from ..errors import brief
from .described import Section, require, setting


@dataclass(frozen=True)
class GrpoSettings(Section, section="grpo"):
    """What the paper has is `presets.PRESETS`; it leaves `clip` and `temperature_mode` open."""

    prompts_per_iteration: int = setting(
        1,
        "P, prompts of an iteration. Each has a neighborhood of its own, and their gradients are averaged: more make "
        "steadier, slower iterations.",
        least=1,
        highest=64,
    )
    group_size: int = setting(
        12,
        "G, candidates of each prompt. More compare better and take longer to draw.",
        least=2,
        why="rewards are compared",
        highest=128,
    )
    strength: float = setting(
        0.3,
        "s, how far the neighbours are from the base noise: 0 the same picture, 1 unrelated ones. 0.3 is best in the "
        "paper; raise it if all candidates look alike.",
        above=0,
        most=1,
        step=0.01,
    )
    probe: int = setting(
        0,
        "Neighborhoods by which a training finds its strength before the first iteration: of five strengths it takes "
        "the one at which they agree most on what to change. Each is drawn, scored and passed back five times. 8 are "
        "enough where a LoRA learns at all; 0: strength is as set.",
        least=0,
        highest=1024,
        omit_default=True,
    )
    anchors: int = setting(
        1,
        "B, how many of a group's G candidates are passed through the model at each trained step. More buy little: "
        "their gradients are nearly the same.",
        least=1,
        highest=128,
    )
    trained_steps: int = setting(
        0,
        "K of the T solver steps are trained, drawn anew each iteration. 0: all. The update costs B x K passes for "
        "each prompt.",
        least=0,
        highest=100,
    )
    distance: str = setting(
        NEXT,
        "Where candidates are compared. next: after the step, as in the paper. clean: in the clean picture that the "
        "model expects at the step, without the noise that is still there. end: where each candidate ended.",
        choices=DISTANCES,
        omit_default=True,
    )
    step_choice: str = setting(
        RANDOM,
        "Which K of the T steps are trained, if not all: random, drawn anew each iteration; early: the first, "
        "where the composition is decided; late: the last.",
        choices=STEP_CHOICES,
        omit_default=True,
    )
    hold: float = setting(
        0.0,
        "If the early or late steps alone are trained: weight of leaving the model's velocity at the others as it is, "
        "for B more passes with gradient and as many without. 5 suits the embedded models; 0: off.",
        least=0,
        highest=1000.0,
        step=0.1,
        omit_default=True,
    )
    antithetic: bool = setting(
        False,
        "Neighbours come in pairs, one on either side of the base noise.",
        omit_default=True,
    )
    quasi_norm: float = setting(
        0.8,
        "p: below 2, groups whose rewards hardly differ count less. 2 is plain GRPO.",
        above=0,
        most=2,
        step=0.05,
    )
    clip: float = setting(
        0.2,
        "How far the ratio of new to old policy may move from 1 (0.2: by 20 %); matters with several updates per "
        "rollout.",
        above=0,
        highest=10.0,
        finest=0.001,
    )
    temperature: float = setting(
        1.0,
        "Of the softmax over distances. Lower is sharper, and the clip acts sooner.",
        above=0,
        highest=1e6,
        finest=0.001,
    )
    temperature_mode: str = setting(
        "scale-free",
        "Unit of the softmax temperature. scale-free suits every resolution; raw is the paper's.",
        choices=TEMPERATURE_MODES,
    )
    updates_per_rollout: int = setting(
        1,
        "Optimiser steps on the same candidates. More use a rollout better, up to the clip.",
        least=1,
        highest=32,
    )
    kl_weight: float = setting(
        0.0,
        "Weight of the divergence from the model without the LoRA: holds the policy back to it, for one more forward "
        "pass. 0: off.",
        least=0,
        highest=100.0,
        step=0.01,
    )
    guard: str = setting(
        POLICY,
        "What that divergence is of. policy: of the candidates' probabilities, as in the paper. velocity: of the "
        "model's velocity, in every direction. norm: of the velocity's length, if it grows.",
        choices=GUARDS,
        omit_default=True,
    )
    trust: str = setting(
        CLIP,
        "What ends the use of a rollout. clip: a candidate's ratio beyond 1 +- clip. kl: a divergence of all "
        "candidates beyond clip.",
        choices=TRUSTS,
        omit_default=True,
    )
    spread: str = setting(
        GROUP,
        "What rewards are divided by. group: each group's own spread. batch: that of all groups of the iteration, so "
        "that groups that differ little count little.",
        choices=SPREADS,
        omit_default=True,
    )
    scorings: int = setting(
        1,
        "How often a picture is scored, from the second time on shifted by a pixel. With 2 or more, what differs from "
        "time to time counts as the reward's noise: the more of it, the shorter the update.",
        least=1,
        highest=16,
        omit_default=True,
    )
    advantage_bound: float = setting(
        0.0,
        "Advantages are bounded softly to so many standard deviations. 0: not at all.",
        least=0,
        highest=100.0,
        step=0.1,
        omit_default=True,
    )
    reward_normalisation: str = setting(
        "advantage",
        "advantage: rewards of any scale count by their weights. raw: the scores themselves are added.",
        choices=NORMALISATIONS,
    )
    pairing: str = setting(
        STRATIFIED,
        "Which candidates are anchors. stratified: each step has B of its own. crossed: the paper's, the same B at "
        "every step.",
        choices=PAIRINGS,
    )
    objective: str = setting(
        "neighbor",
        "How the candidates' scores become a loss. neighbor: the paper's leaping policy. The others are its rivals, to "
        "compare with: each has a preset of its name.",
        choices=tuple(OBJECTIVES),
        own=True,
        omit_default=True,
    )
    noise_level: float = setting(
        0.7,
        "Noise of each step of flow-grpo and mix-grpo (their a) and of dance-grpo (its eta, 0.3 there).",
        above=0,
        highest=10.0,
        finest=0.01,
        omit_default=True,
    )

    def check(self) -> None:
        most = f"must be between 1 and grpo.group_size = {self.group_size}"
        require(self.anchors <= self.group_size, "grpo.anchors", self.anchors, most)
        require(self.probe != 1, "grpo.probe", self.probe, "must be 0, or at least 2: neighborhoods are compared")
        for name in ("probe", "hold"):
            off = getattr(self, name) == 0 or self.objective not in RIVALS
            require(off, f"grpo.{name}", getattr(self, name), f"must be 0: {self.objective} has nothing of the kind")


@dataclass(frozen=True)
class OptimizerSettings(Section, section="optimizer"):
    """AdamW on the LoRA."""

    learning_rate: float = setting(
        1e-4,
        "Of AdamW on the LoRA; larger learns faster and breaks sooner. 1e-4 to 3e-4 suits FLUX.1-dev, 5e-4 to "
        "3e-3 the embedded models.",
        above=0,
        highest=1.0,
        step=1e-6,
        finest=1e-7,
    )
    beta1: float = setting(0.9, "AdamW's: how much of the gradients' running mean stays.", least=0, below=1)
    beta2: float = setting(0.999, "AdamW's: how much of their squares' running mean stays.", least=0, below=1)
    weight_decay: float = setting(
        0.0,
        "AdamW's: pulls the LoRA towards zero, so that it changes less. 0: off.",
        least=0,
        highest=1.0,
        finest=0.0001,
    )
    max_grad_ratio: float = setting(
        4.0,
        "A gradient that is so many times larger than usual (the median of the last 50) is scaled down to that: no "
        "single update goes too far.",
        least=1,
        highest=1000.0,
        step=0.1,
        finest=0.001,
    )
    warmup: int = setting(
        0,
        "Updates over which the learning rate rises to its full value. 0: none.",
        unit="update",
        least=0,
        highest=10000,
    )
    ema_decay: float = setting(
        0.0,
        "The exported LoRA is an average of its weights instead of the last ones; 0.95 is smooth. 0: off.",
        least=0,
        below=1,
        finest=0.0001,
    )


@dataclass(frozen=True)
class RewardSettings(Section, section="rewards"):
    """One of the rewards, each a [[rewards]] of its own."""

    kind: str = setting(help="Which reward it is: a name of the table in rewards.md.")
    name: str = setting("", "What it is called in tables and curves. Empty: its kind.")
    weight: float = setting(
        1.0,
        "Share in the sum of the advantages; a negative one asks for less of it. Not 0.",
        lowest=-100.0,
        highest=100.0,
        step=0.05,
    )
    held_out: bool = setting(False, "Watched and drawn, never trained on: this is how reward hacking shows.")
    clip: tuple[float, ...] = setting(
        (),
        "[lowest, highest] score that counts in training: beyond them there is nothing to gain. Tables and curves "
        "show the score as it is.",
    )
    options: Mapping[str, Any] = setting(factory=dict, help="Of its kind: see rewards.md.")

    def check(self) -> None:
        bounds = len(self.clip) == 2 and self.clip[0] < self.clip[1]
        name = f"clip of the reward {brief(self.label)}"
        require(not self.clip or bounds, name, list(self.clip), "must be [low, high]")

    @property
    def label(self) -> str:
        return self.name or self.kind


def different_labels(rewards: Sequence[RewardSettings]) -> list[str]:
    """The rewards' labels, each of which must name one of them."""
    labels = [r.label for r in rewards]
    double = sorted({label for label in labels if labels.count(label) > 1})
    require(not double, "rewards.name", double, "each reward needs a name of its own")
    return labels
