"""The rewards by CLIP models that people know, as nodes."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from .rewards import FOLDER, REWARD_OUTPUT, build
from .wires import CATEGORY

AUTO, EMBEDDED = "auto", "embedded"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
PARTS = ("config.json", "model.safetensors")  # either one makes a folder a model

DTYPE = io.Combo.Input(
    "precision",
    options=[AUTO, "float32", "bfloat16", "float16"],
    default=AUTO,
    tooltip="auto: float16 on the GPU, float32 on the CPU. float32 takes twice the memory, and scores as published.",
)


def reward_models() -> dict[str, str]:
    """Files of weights and folders of models in models/rewards, by name; the first folder's where two have one."""
    found: dict[str, str] = {}
    for root in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for path in sorted(root.glob("*")):
            folder = any((path / part).is_file() for part in PARTS)
            if folder or (path.is_file() and path.suffix in SUFFIXES):
                found.setdefault(path.name, str(path))
    return found


def model_input(tooltip: str, name: str = "model", also: tuple[str, ...] = ()) -> io.Combo.Input:
    return io.Combo.Input(name, options=[AUTO, *also, *reward_models()], default=AUTO, tooltip=tooltip)


def known(name: str, also: tuple[str, ...] = ()) -> bool | str:
    """What `validate_inputs` returns for a chosen model."""
    return name in (AUTO, *also, *reward_models()) or (
        f"there is no {name!r} in models/rewards: put it there and press R, or choose auto"
    )


def path_of(name: str) -> str:
    """As the trainer's option `path`: empty leaves it to the reward to find its weights."""
    if name == EMBEDDED:
        from ..trainer import tiny

        return str(tiny.CLIP)
    return "" if name == AUTO else reward_models()[name]


class HPSv2Reward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOHPSv2Reward",
            display_name="HPSv2.1 Reward",
            category=CATEGORY,
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
        return known(model)

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
        return known(model)

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
            description="CLIPScore: how well a picture matches its prompt, by OpenAI's CLIP ViT-L/14. 0 to 100, about "
            "15 to 35.",
            inputs=[model_input(CLIP_L), DTYPE],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return known(model)

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
        wrong = [answer for answer in (known(model), known(head)) if answer is not True]
        return wrong[0] if wrong else True

    @classmethod
    def execute(cls, model: str, head: str, precision: str) -> io.NodeOutput:
        return io.NodeOutput(build("aesthetic", path=path_of(model), head=path_of(head), dtype=precision))
