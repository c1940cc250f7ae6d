"""Rewards by CLIP models: those that people know, and any other."""

from dataclasses import replace

from comfy_api.latest import io

from .reward_files import DTYPE, known, model_input, path_of, reward_folders
from .rewards import REWARD_OUTPUT, build
from .wires import CATEGORY, searched_by


class HPSv2Reward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOHPSv2Reward",
            display_name="HPSv2.1 Reward",
            category=CATEGORY,
            **searched_by("reward", "human preference", "hps"),
            description="Human Preference Score v2.1: which picture of a prompt people prefer. About 0.2 to 0.35.",
            inputs=[
                model_input(
                    "auto: HPS_v2.1_compressed.pt (1.97 GB, from huggingface.co/xswu/HPSv2) in models/rewards."
                ),
                DTYPE,
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return known(model, "hpsv2.1")

    @classmethod
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        return io.NodeOutput(build("hpsv2.1", path=path_of(model), dtype=precision))


class PickScoreReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOPickScoreReward",
            display_name="PickScore Reward",
            category=CATEGORY,
            **searched_by("reward", "human preference"),
            description="PickScore v1, a human preference model: which picture of a prompt users of a text-to-image "
            "service chose. About 18 to 24.",
            inputs=[
                model_input(
                    "auto: the folder PickScore_v1 (config.json and model.safetensors, 3.9 GB, from "
                    "huggingface.co/yuvalkirstain/PickScore_v1) in models/rewards."
                ),
                DTYPE,
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return known(model, "pickscore")

    @classmethod
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        return io.NodeOutput(build("pickscore", path=path_of(model), dtype=precision))


CLIP_L = (
    "auto: the folder clip-vit-large-patch14 (config.json and model.safetensors, 1.71 GB, from "
    "huggingface.co/openai/clip-vit-large-patch14) in models/rewards."
)


class CLIPScoreReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOCLIPScoreReward",
            display_name="CLIPScore Reward",
            category=CATEGORY,
            **searched_by("reward", "prompt alignment"),
            description="CLIPScore: how well a picture matches its prompt, by OpenAI's CLIP ViT-L/14. 0 to 100, about "
            "15 to 35.",
            inputs=[model_input(CLIP_L), DTYPE],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return known(model, "clip-l")

    @classmethod
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        return io.NodeOutput(build("clipscore", path=path_of(model), dtype=precision))


class AestheticReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOAestheticReward",
            display_name="Aesthetic Reward",
            category=CATEGORY,
            **searched_by("reward", "laion", "beauty"),
            description="LAION's aesthetic predictor: how much people like the look of a picture, whatever the prompt. "
            "1 to 10.",
            inputs=[
                model_input(CLIP_L),
                model_input(
                    "auto: sac+logos+ava1-l14-linearMSE.pth (3.7 MB, from "
                    "github.com/christophschuhmann/improved-aesthetic-predictor) in models/rewards.",
                    "head",
                ),
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


class ClipReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOClipReward",
            display_name="CLIP Reward",
            category=CATEGORY,
            **searched_by("reward", "score"),
            description="How well a picture matches its prompt, by any CLIP model of transformers; PickScore (human "
            "preference) is one.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=["embedded", "embedded held-out", *reward_folders()],
                    default="embedded",
                    tooltip="A CLIPModel folder in models/rewards, or one of the two "
                    "small ones for the embedded model.",
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
        if model.startswith("embedded") or model in reward_folders():
            return True
        return (
            f"there is no reward model {model!r}: put its folder (config.json, "
            "model.safetensors, ...) into models/rewards"
        )

    @classmethod
    def execute(cls, model: str, scale: str) -> io.NodeOutput:
        if model.startswith("embedded"):
            return io.NodeOutput(build("tiny-clip-heldout" if model.endswith("held-out") else "tiny-clip"))
        (named,) = build("clip", path=reward_folders()[model], scale=scale)
        return io.NodeOutput((replace(named, settings=replace(named.settings, name=model)),))
