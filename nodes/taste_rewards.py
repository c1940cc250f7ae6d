"""A taste of one's own as a reward: phrases, or reference pictures."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..trainer.texts import lines_of
from . import host
from .newer import searched_by
from .reward_files import DTYPE, EMBEDDED, known, path_of, weights_input
from .rewards import REWARD_OUTPUT, build
from .wires import CATEGORY

if TYPE_CHECKING:
    from torch import Tensor

SMALL = "embedded: the small one for the embedded model."


class TextPreferenceReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOTextPreference",
            display_name="Text Preference",
            category=CATEGORY,
            **searched_by("reward", "taste"),
            description="Your own taste in words: rewards pictures nearer to the phrases you want than to those you do "
            "not, as a CLIP model sees it.",
            inputs=[
                io.String.Input(
                    "wanted",
                    multiline=True,
                    default="sharp, detailed\ngood light",
                    tooltip="One phrase a line, with a weight if you like: 'sharp:2'. Without one, it weighs 1.",
                ),
                io.String.Input(
                    "unwanted",
                    multiline=True,
                    default="blurry, flat",
                    tooltip="Phrases that a picture should be far from, one a line, with a weight if you like.",
                ),
                weights_input("clip-l", more=f"Or any other CLIP. {SMALL}", also=(EMBEDDED,)),
                DTYPE,
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return known(model, "clip-l", (EMBEDDED,))

    @classmethod
    def execute(cls, wanted: str, unwanted: str, model: str, precision: str) -> io.NodeOutput:
        sides = {
            name: [line for line in lines_of(text) if line.strip()]
            for name, text in (("wanted", wanted), ("unwanted", unwanted))
        }
        return io.NodeOutput(build("text-preference", path=path_of(model), dtype=precision, **sides))


class ReferenceSimilarityReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOReferenceSimilarity",
            display_name="Reference Similarity",
            category=CATEGORY,
            **searched_by("reward", "taste", "dinov2"),
            description="Your own taste in pictures: rewards what looks like the reference pictures, as CLIP or DINOv2 "
            "sees it. -1 to 1.",
            inputs=[
                io.Image.Input(
                    "references", tooltip="One picture or a batch. They are kept in output/neighbor_grpo/references."
                ),
                weights_input(
                    "clip-l",
                    more=f"Or any other CLIP, or the folder of a DINOv2 (Dinov2Model). {SMALL}",
                    also=(EMBEDDED,),
                ),
                io.Combo.Input(
                    "compare",
                    options=["mean", "best"],
                    default="mean",
                    tooltip="mean: what the references have in common. best: like any one of them.",
                ),
                DTYPE,
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return known(model, "clip-l", (EMBEDDED,))

    @classmethod
    def execute(cls, references: Tensor, model: str, compare: str, precision: str) -> io.NodeOutput:
        files = stored_pictures(references)
        options = {"path": path_of(model), "references": files, "compare": compare, "dtype": precision}
        return io.NodeOutput(build("reference-similarity", **options))


def stored_pictures(images: Tensor) -> list[str]:
    """Files of the pictures [N, H, W, 3], each called by its content: a run says by them what it was trained on."""
    from ..trainer.files import written_whole
    from ..trainer.pictures.convert import channels_first, to_pictures

    folder = host.runs_folder() / "references"
    files = []
    for picture in to_pictures(channels_first(images, "Reference Similarity")):
        content = f"{picture.size}".encode() + picture.tobytes()
        file = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.png"
        if not file.exists():
            with written_whole(file) as partial:
                picture.save(partial, "PNG")
        files.append(str(file))
    return files
