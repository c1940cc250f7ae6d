"""GRPO Settings: what rarely needs a change, for Step and Train alike. Defaults are the paper's."""

from typing import Any

from comfy_api.latest import io

from ..trainer.choices import NORMALISATIONS, TEMPERATURE_MODES
from ..trainer.settings.config import GrpoSettings, OptimizerSettings
from .wires import CATEGORY, SETTINGS, Settings, searched_by

G, A = GrpoSettings(), OptimizerSettings()
DEFAULTS = Settings(G, A)

LEARNING_RATE = io.Float.Input(
    "learning_rate",
    default=1e-4,
    min=1e-7,
    max=1.0,
    step=1e-6,
    round=1e-7,
    tooltip="Of AdamW on the LoRA; larger learns faster and breaks sooner. 1e-4 to 3e-4 suits FLUX.1-dev, "
    "1e-3 the embedded model.",
)
GRPO_SETTINGS = SETTINGS.Input("settings", optional=True, tooltip="GRPO Settings; without it the paper's values.")


class GrpoSettingsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOSettings",
            display_name="GRPO Settings",
            category=CATEGORY,
            **searched_by("hyperparameters", "kl", "optimizer"),
            description="Optional: how scores become an update. Without it, Step and Train use the paper's values.",
            inputs=[
                io.Int.Input(
                    "anchors",
                    default=G.anchors,
                    min=1,
                    max=128,
                    tooltip="B, candidates of a group that are passed through the model for the update.",
                ),
                io.Int.Input(
                    "trained_steps",
                    default=G.trained_steps,
                    min=1,
                    max=100,
                    tooltip="K of the T solver steps are trained, drawn anew each "
                    "iteration. The update costs B x K passes.",
                ),
                io.Float.Input(
                    "quasi_norm",
                    default=G.quasi_norm,
                    min=0.05,
                    max=2.0,
                    step=0.05,
                    tooltip="p: below 2, groups whose rewards hardly differ count less. 2 is plain GRPO.",
                ),
                io.Float.Input(
                    "clip",
                    default=G.clip,
                    min=0.001,
                    max=10.0,
                    step=0.001,
                    round=0.001,
                    tooltip="How far the ratio of new to old policy may move from 1 (0.2: by 20 %); matters "
                    "with several updates per rollout.",
                ),
                io.Int.Input(
                    "updates_per_rollout",
                    default=G.updates_per_rollout,
                    min=1,
                    max=32,
                    tooltip="Optimiser steps on the same candidates. More use a rollout better, up to the clip.",
                ),
                io.Float.Input(
                    "kl_weight",
                    default=G.kl_weight,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    tooltip="Weight of the divergence from the base model: holds the policy back to it, for one more "
                    "forward pass. 0: off.",
                ),
                io.Combo.Input(
                    "reward_normalisation",
                    options=list(NORMALISATIONS),
                    tooltip="advantage: rewards of any scale count by their weights. raw: "
                    "the scores themselves are added.",
                ),
                io.Combo.Input(
                    "temperature_mode",
                    options=list(TEMPERATURE_MODES),
                    tooltip="Unit of the softmax temperature. scale-free suits every resolution; raw is the paper's.",
                ),
                io.Float.Input(
                    "temperature",
                    default=G.temperature,
                    min=0.001,
                    max=1e6,
                    step=0.001,
                    round=0.001,
                    tooltip="Of the softmax over distances. Lower is sharper, and the clip acts sooner.",
                ),
                io.Float.Input(
                    "max_grad_ratio",
                    default=A.max_grad_ratio,
                    min=1.0,
                    max=1000.0,
                    step=0.1,
                    round=0.001,
                    tooltip="A gradient that is so many times larger than usual (the median of the last 50) is scaled "
                    "down to that: no single update goes too far.",
                ),
                io.Float.Input(
                    "weight_decay",
                    default=A.weight_decay,
                    min=0.0,
                    max=1.0,
                    step=0.0001,
                    round=0.0001,
                    tooltip="AdamW's: pulls the LoRA towards zero, so that it changes less. 0: off.",
                ),
                io.Int.Input(
                    "warmup",
                    default=A.warmup,
                    min=0,
                    max=10000,
                    tooltip="Updates over which the learning rate rises to its full value. 0: none.",
                ),
                io.Float.Input(
                    "ema_decay",
                    default=A.ema_decay,
                    min=0.0,
                    max=0.9999,
                    step=0.0001,
                    round=0.0001,
                    tooltip="Train saves an average of the LoRA instead of its last weights; 0.95 is smooth. 0: off.",
                ),
            ],
            outputs=[
                SETTINGS.Output("settings", display_name="settings", tooltip="For Step, Train and Tile Neighborhood.")
            ],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        grpo = {name: inputs[name] for name in GrpoSettings.__dataclass_fields__ if name in inputs}
        optimizer = {name: inputs[name] for name in OptimizerSettings.__dataclass_fields__ if name in inputs}
        # anchors cannot be compared with the group here: the group size arrives with the neighborhood
        group_size = max(G.group_size, grpo["anchors"])
        return io.NodeOutput(Settings(GrpoSettings(**grpo, group_size=group_size), OptimizerSettings(**optimizer)))
