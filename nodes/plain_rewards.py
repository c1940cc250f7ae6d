"""Rewards that need no model."""

from __future__ import annotations

from comfy_api.latest import io

from .rewards import REWARD_OUTPUT, build
from .wires import CATEGORY, searched_by


class ColourfulnessReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOColourfulnessReward",
            display_name="Colourfulness Reward",
            category=CATEGORY,
            **searched_by("reward", "score"),
            description="How colourful a picture is (Hasler and Suesstrunk 2003): about "
            "0 (grey) to 100. Needs no model.",
            inputs=[],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(build("colourfulness"))


class JpegReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOJpegReward",
            display_name="JPEG Compressibility Reward",
            category=CATEGORY,
            **searched_by("reward", "score"),
            description="High for plain pictures, by their size as JPEG. A negative weight "
            "in Combine Rewards asks for detail.",
            inputs=[],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(build("jpeg-compressibility"))


class SharpnessReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOSharpnessReward",
            display_name="Sharpness Reward",
            category=CATEGORY,
            **searched_by("reward", "blur"),
            description="How crisp a picture is: the mean step in brightness between neighbouring pixels, in levels of "
            "255. Needs no model.",
            inputs=[],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(build("sharpness"))
