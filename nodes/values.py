"""Image Values: a number for each picture, and an example of a node whose numbers become scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .newer import searched_by
from .wires import CATEGORY

if TYPE_CHECKING:
    from torch import Tensor

MEASURES = ["contrast", "brightness", "saturation", "sharpness"]


class ImageValues(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOImageValues",
            display_name="Image Values",
            category=CATEGORY,
            **searched_by("brightness", "sharpness"),
            description="A number for each picture, for Scores from Values. It stands for any node, of any pack, that "
            "gives numbers: an aesthetic score, a face detector, your own.",
            inputs=[
                io.Image.Input("images", tooltip="The rollout's pictures."),
                io.Combo.Input(
                    "measure",
                    options=MEASURES,
                    default="contrast",
                    tooltip="contrast: how far greys spread (standard deviation). brightness: their mean. saturation: "
                    "mean distance from grey. sharpness: mean step between neighbouring pixels. All 0 to 1.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "values",
                    display_name="values",
                    is_output_list=True,
                    tooltip="One number for each picture, in their order.",
                )
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, measure: str) -> io.NodeOutput:
        from ..trainer.pictures.convert import channels_first

        pixels = channels_first(images, "Image Values").movedim(1, -1)
        return io.NodeOutput(measured(pixels, measure).tolist())


def measured(images: Tensor, measure: str) -> Tensor:
    """[N] of pictures [N, H, W, 3] in [0, 1]."""
    if measure == "saturation":
        return (images.amax(-1) - images.amin(-1)).flatten(1).mean(1)
    red, green, blue = images.float().unbind(-1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # [N, H, W]
    if measure == "contrast":
        return grey.flatten(1).std(1, correction=0)
    if measure == "brightness":
        return grey.flatten(1).mean(1)
    across, down = grey.diff(dim=2).abs(), grey.diff(dim=1).abs()
    return (across.flatten(1).mean(1) + down.flatten(1).mean(1)) / 2
