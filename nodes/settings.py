"""GRPO Settings: what rarely needs a change, for Step and Train alike."""

from typing import Any

from comfy_api.latest import io

from ..trainer.settings.config import GrpoSettings, OptimizerSettings
from ..trainer.settings.presets import FORMER
from .inputs import setting_input, setting_inputs
from .newer import rare, searched_by
from .wires import CATEGORY, SETTINGS, Settings

DEFAULTS = Settings(GrpoSettings(), OptimizerSettings())

LEARNING_RATE = setting_input(OptimizerSettings, "learning_rate")
GRPO_SETTINGS = SETTINGS.Input("settings", optional=True, tooltip="GRPO Settings; without it their defaults.")
OFTEN = ("anchors", "trained_steps", "quasi_norm", "clip", "updates_per_rollout", "kl_weight")
RARELY = ("reward_normalisation", "temperature_mode", "temperature")
ADDED = ("pairing", "step_choice", "distance", "hold", "probe")  # after the first graphs were saved
OF_GRPO = (*OFTEN, *RARELY)
OF_OPTIMIZER = ("max_grad_ratio", "weight_decay", "warmup", "ema_decay")


class GrpoSettingsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOSettings",
            display_name="GRPO Settings",
            category=CATEGORY,
            **searched_by("hyperparameters", "kl"),
            description="Optional: how scores become an update. Without it, Step and Train use the same defaults.",
            inputs=[
                *setting_inputs(GrpoSettings, *OFTEN),
                *rare(*setting_inputs(GrpoSettings, *RARELY), *setting_inputs(OptimizerSettings, *OF_OPTIMIZER)),
                *rare(*(setting_input(GrpoSettings, name, optional=True) for name in ADDED)),
            ],
            outputs=[
                SETTINGS.Output("settings", display_name="settings", tooltip="For Step, Train and Tile Neighborhood.")
            ],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        grpo = {name: inputs[name] for name in OF_GRPO}
        missing = {name: FORMER["grpo"].get(name, getattr(GrpoSettings, name)) for name in ADDED}
        grpo |= {name: inputs.get(name, missing[name]) for name in ADDED}  # an older graph has its numbers alone
        optimizer = {name: inputs[name] for name in OF_OPTIMIZER}
        # anchors cannot be compared with the group here: the group size arrives with the neighborhood
        group_size = max(GrpoSettings.group_size, grpo["anchors"])
        return io.NodeOutput(Settings(GrpoSettings(**grpo, group_size=group_size), OptimizerSettings(**optimizer)))
