"""Tile Neighborhood and Reward Curve: pictures of what happens, for graphs without the panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..trainer.errors import UserError
from .newer import searched_by
from .stepping import next_step
from .wires import CATEGORY, RUN, SCORES, SETTINGS, Run, Scored, Settings

if TYPE_CHECKING:
    from torch import Tensor

CHARTS = 32  # in one picture
REWARD_CURVE = "reward/"  # what the names of the rewards' curves begin with


class TileNeighborhood(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOTileNeighborhood",
            display_name="Tile Neighborhood",
            category=CATEGORY,
            **searched_by("contact sheet"),
            description="A contact sheet of the candidates: rank, advantage and rewards of each; "
            "framed ones are the next step's anchors.",
            inputs=[
                io.Image.Input("images", tooltip="The rollout's pictures."),
                SCORES.Input("scores", tooltip="What Score Images made of the same rollout."),
                io.Int.Input("columns", default=6, min=1, max=32, tooltip="Pictures in a row."),
                io.Int.Input(
                    "edge", default=192, min=32, max=1024, tooltip="Longest edge of a picture on the sheet, pixels."
                ),
                SETTINGS.Input("settings", optional=True, tooltip="As for the Step, which draws the anchors by it."),
            ],
            outputs=[io.Image.Output("sheet", display_name="sheet", tooltip="One picture; a block for each prompt.")],
        )

    @classmethod
    def execute(
        cls, images: Tensor, scores: Scored, columns: int, edge: int, settings: Settings | None = None
    ) -> io.NodeOutput:
        from ..trainer.pictures.convert import channels_first
        from ..trainer.pictures.sheets import contact_sheet, image_tensor

        pixels = channels_first(images, "Tile Neighborhood")
        expected = len(scores.of.texts)
        if len(images) != expected:
            raise UserError(
                f"Tile Neighborhood got {len(images)} pictures, the rollout has {expected}: connect its images"
            )
        setup, group, pairs = next_step(scores.of, scores, settings)
        prompts = [setup.config.prompts[p] for p in group.candidates.prompts]
        anchors = pairs.anchors(*group.advantages.shape)
        sheet = contact_sheet(pixels, prompts, group.scores, group.advantages, anchors, columns, edge)
        return io.NodeOutput(image_tensor(sheet))


class RewardCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPORewardCurve",
            display_name="Reward Curve",
            category=CATEGORY,
            **searched_by("plot", "chart"),
            description="The run's rewards over its iterations, each in a chart of its own; held-out ones too.",
            inputs=[
                RUN.Input("run", tooltip="The run of Neighbor GRPO Train."),
                io.Int.Input("width", default=800, min=200, max=4096, tooltip="Of the picture, pixels."),
                io.Int.Input("height", default=240, min=100, max=2048, tooltip="Pixels of each chart."),
            ],
            outputs=[io.Image.Output("chart", display_name="chart", tooltip="One picture; a chart for each reward.")],
        )

    @classmethod
    def execute(cls, run: Run, width: int, height: int) -> io.NodeOutput:
        from ..trainer.pictures.plot import curves
        from ..trainer.pictures.sheets import image_tensor
        from ..trainer.store.facts import finite
        from ..trainer.store.reader import reading

        with reading(run.folder) as store:
            names = [name for name in store.names() if name.startswith(REWARD_CURVE)][:CHARTS]
            read = ((name.removeprefix(REWARD_CURVE), store.curve(name)) for name in names)
            series = {name: [(i, finite(value)) for i, value in curve] for name, curve in read}
        if not series:
            raise UserError(f"{run.folder} has no finished iteration yet")
        return io.NodeOutput(image_tensor(curves(series, width, height)))
