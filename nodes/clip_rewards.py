"""Rewards by CLIP models that have more inputs than their weights."""

from dataclasses import replace

from comfy_api.latest import io

from ..trainer.errors import brief
from .newer import searched_by
from .reward_files import DTYPE, known, path_of, reward_folders, weights_input
from .rewards import REWARD_OUTPUT, build
from .wires import CATEGORY


class AestheticReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOAestheticReward",
            display_name="Aesthetic Reward",
            category=CATEGORY,
            **searched_by("laion", "beauty"),
            description="LAION's aesthetic predictor: how much people like the look of a picture, whatever the prompt. "
            "1 to 10.",
            inputs=[
                weights_input("clip-l"),
                weights_input("aesthetic", "head"),
                DTYPE,
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str, head: str) -> bool | str:
        wrong = [answer for answer in (known(model, "clip-l"), known(head, "aesthetic")) if isinstance(answer, str)]
        return "; ".join(wrong) or True

    @classmethod
    def execute(cls, model: str, head: str, precision: str) -> io.NodeOutput:
        return io.NodeOutput(build("aesthetic", path=path_of(model), head=path_of(head), dtype=precision))


# the small CLIPs that come along: name in the list -> kind
EMBEDDED = {
    "embedded": "tiny-clip",
    "embedded held-out": "tiny-clip-heldout",
    "embedded scenes": "tiny-scene-clip",
}


class ClipReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOClipReward",
            display_name="CLIP Reward",
            category=CATEGORY,
            **searched_by("pickscore"),
            description="How well a picture matches its prompt, by any CLIP model of transformers; PickScore (human "
            "preference) is one.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[*EMBEDDED, *reward_folders()],
                    default="embedded",
                    tooltip="A CLIPModel folder in models/rewards, or one of the small ones for the embedded models.",
                ),
                io.Combo.Input(
                    "scale",
                    options=["cosine", "logit"],
                    tooltip="cosine: -1 to 1. logit: times the model's own scale, which is how PickScore is defined.",
                ),
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        if model in EMBEDDED or model in reward_folders():
            return True
        return (
            f"there is no reward model {brief(model)}: put its folder (config.json, "
            "model.safetensors, ...) into models/rewards"
        )

    @classmethod
    def execute(cls, model: str, scale: str) -> io.NodeOutput:
        if model in EMBEDDED:
            return io.NodeOutput(build(EMBEDDED[model]))
        (named,) = build("clip", path=reward_folders()[model], scale=scale)
        return io.NodeOutput((replace(named, settings=replace(named.settings, name=model)),))
