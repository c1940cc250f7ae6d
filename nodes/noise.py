"""Noise Neighborhood: stage 1, before any prompt."""

from comfy_api.latest import io

from .wires import CATEGORY, NEIGHBORHOOD, Neighborhood, searched_by

PIXELS = "Of the candidates, pixels, a multiple of 16; 64 suits the embedded model. Larger takes more time and memory."


class NoiseNeighborhood(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPONoiseNeighborhood",
            display_name="Noise Neighborhood",
            category=CATEGORY,
            **searched_by("seed", "noise"),
            description="One base noise for each prompt, and G neighbours of it: the candidates that are compared.",
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=False,
                    tooltip="Every random choice of the training follows from it: a run can be repeated exactly.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.3,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How far the neighbours are from the base noise: 0 the same picture, 1 unrelated ones. "
                    "0.3 is best in the paper; raise it if all candidates look alike.",
                ),
                io.Int.Input(
                    "group_size",
                    default=12,
                    min=2,
                    max=128,
                    tooltip="G, candidates of each prompt. More compare better and take longer to draw.",
                ),
                io.Int.Input("width", default=512, min=16, max=4096, step=16, tooltip=PIXELS),
                io.Int.Input("height", default=512, min=16, max=4096, step=16, tooltip=PIXELS),
            ],
            outputs=[
                NEIGHBORHOOD.Output("neighborhood", display_name="neighborhood", tooltip="For Rollout and Train.")
            ],
        )

    @classmethod
    def validate_inputs(cls, group_size: int) -> bool | str:
        return (
            group_size >= 2 or f"group_size must be at least 2, got {group_size}: rewards are compared within a group"
        )

    @classmethod
    def execute(cls, seed: int, strength: float, group_size: int, width: int, height: int) -> io.NodeOutput:
        return io.NodeOutput(Neighborhood(seed, strength, group_size, width, height))
