"""Memory Plan: whether a training will fit the card, before anything is loaded."""

from __future__ import annotations

from comfy_api.latest import io

from ..trainer.models.files.source import EMBEDDED
from ..trainer.settings.config import (
    Config,
    GrpoSettings,
    LoraSettings,
    ModelSettings,
    RewardSettings,
    RunSettings,
    SamplingSettings,
)
from . import host
from .inputs import setting_input, setting_inputs
from .newer import searched_by
from .wires import CATEGORY

MODELS = ("FLUX.1-dev", "FLUX.1-schnell", EMBEDDED)
REWARDS = ("none", "hpsv2.1", "pickscore", "imagereward", "clipscore", "aesthetic")
NO_REWARD = "colourfulness"  # takes no memory of a model


class MemoryPlanNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOMemoryPlan",
            display_name="Memory Plan",
            category=CATEGORY,
            **searched_by("vram", "out of memory"),
            description="Predicts the GPU memory of a training for each memory plan, and which one fits. "
            "Loads no weights and needs no GPU; takes about a minute.",
            is_output_node=True,
            inputs=[
                io.Combo.Input("model", options=list(MODELS), tooltip="Which FLUX.1 will be trained."),
                io.Float.Input(
                    "vram",
                    default=16.0,
                    min=1.0,
                    max=1024.0,
                    step=0.5,
                    tooltip="Memory of the graphics card, in GiB.",
                ),
                # smaller pictures fit every card
                setting_input(SamplingSettings, "width", min=64),
                setting_input(SamplingSettings, "height", min=64),
                setting_input(RunSettings, "micro_batch"),
                *setting_inputs(LoraSettings, "rank", "targets"),
                setting_input(GrpoSettings, "group_size"),
                io.Combo.Input(
                    "reward",
                    options=list(REWARDS),
                    default="hpsv2.1",
                    tooltip="The largest reward model of the training.",
                ),
                setting_input(RunSettings, "offload_rewards"),
            ],
            outputs=[
                io.String.Output(
                    "table",
                    display_name="table",
                    tooltip="GiB of each phase and plan, and what fits: for Preview as Text.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: str,
        vram: float,
        width: int,
        height: int,
        micro_batch: int,
        rank: int,
        targets: str,
        group_size: int,
        reward: str,
        offload_rewards: bool,
    ) -> io.NodeOutput:
        from ..trainer.planning.report import plan

        config = Config(
            model=ModelSettings(path=model, dtype="bfloat16"),
            prompts=("a prompt",),
            rewards=(RewardSettings(NO_REWARD if reward == "none" else reward),),
            lora=LoraSettings(rank=rank, alpha=rank, targets=targets),
            sampling=SamplingSettings(width, height),
            grpo=GrpoSettings(group_size=group_size),
            run=RunSettings(micro_batch=micro_batch, offload_rewards=offload_rewards),
        )
        with host.training_mode():
            report = plan(config, vram, progress=lambda _: host.raise_if_cancelled())
        table = host.readable(report.lines())
        return io.NodeOutput(table, ui={"text": (table,)})
