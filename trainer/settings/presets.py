"""Sets of defaults that have a name, and those that older versions had: they stand below what a config says itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..choices import AUTO, CROSSED, EARLY, END, REFERENCE

Defaults = Mapping[str, Mapping[str, Any]]  # by section and setting


@dataclass(frozen=True)
class Preset:
    """What `preset = "NAME"` above all sections means."""

    help: str
    defaults: Defaults


def rival(
    objective: str, what: str, *, steps: int, trained: int, shift: float | str = AUTO, updates: int = 1, **grpo: float
) -> Preset:
    """A method to compare with: all candidates are trained, by plain GRPO's advantages and a narrow clip."""
    return Preset(
        f"{what}, to compare with: {steps} steps.",
        {
            "sampling": {"steps": steps, "shift": shift},
            "grpo": {
                "objective": objective,
                "group_size": 12,
                "anchors": 12,
                "trained_steps": trained,
                "pairing": CROSSED,
                "quasi_norm": 2.0,
                "clip": 1e-4,
                "updates_per_rollout": updates,
                **grpo,
            },
        },
    )


PRESETS = {
    "defaults": Preset("No preset: each setting's own default.", {}),
    "paper": Preset(
        "What the paper has: the same 4 anchors at each of 4 steps, and the reference pipeline's text tokens.",
        {
            "model": {"text_tokens": REFERENCE},
            "sampling": {"steps": 8, "solver": "dpm++2m"},
            "grpo": {
                "group_size": 12,
                "strength": 0.3,
                "anchors": 4,
                "trained_steps": 4,
                "pairing": CROSSED,
                "quasi_norm": 0.8,
            },
        },
    ),
    "composition": Preset(
        "For rewards of what is where and how many: the first of 4 steps is trained, by where the candidates end, and "
        "the others are held as they are.",
        {
            "sampling": {"steps": 4},
            "grpo": {
                "prompts_per_iteration": 8,
                "strength": 1.0,
                "anchors": 4,
                "trained_steps": 1,
                "step_choice": EARLY,
                "distance": END,
                "hold": 5.0,
            },
        },
    ),
    "flow-grpo": rival("flow-grpo", "Flow-GRPO as published", steps=10, trained=9, noise_level=0.7, updates=2),
    "flow-grpo-cheap": rival("flow-grpo", "Flow-GRPO in 4 steps", steps=4, trained=3, noise_level=0.7),
    "dance-grpo": rival(
        "dance-grpo", "DanceGRPO as published for FLUX", steps=16, trained=9, shift=3.0, noise_level=0.3, updates=3
    ),
    "mix-grpo": rival("mix-grpo", "MixGRPO as published", steps=25, trained=4, shift=3.0, noise_level=0.7),
    "nft": rival("nft", "DiffusionNFT as published", steps=10, trained=0),
}
# before there was `grpo.pairing`
FORMER: Defaults = {
    "model": {"text_tokens": REFERENCE},
    "grpo": {"anchors": 4, "trained_steps": 4, "pairing": CROSSED},
}


def former(stored: Mapping[str, Any]) -> Defaults:
    """The defaults of the version that stored these settings, where they were others than now."""
    return {} if "pairing" in stored.get("grpo", {}) else FORMER


def as_now(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings as they are said now: with what their version had for what they leave open or called "auto"."""
    defaults = former(stored)
    meant = {
        name: {key: value for key, value in section.items() if key not in defaults.get(name, {}) or value != AUTO}
        for name, section in stored.items()
        if isinstance(section, Mapping)
    }
    return completed_by({**stored, **meant}, defaults)


def completed_by(table: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """A config's table with `defaults` for what it leaves open; what is no section stays, to be refused later."""
    sections = {name: table.get(name, {}) for name in defaults}
    known = {name: {**defaults[name], **its} for name, its in sections.items() if isinstance(its, Mapping)}
    return {**table, **known}
