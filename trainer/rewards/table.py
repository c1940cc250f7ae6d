"""The table of rewards: a line for each kind, the name a config uses. See `base` for what a reward is.

Nothing here imports torch: a config's rewards are checked before that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from .. import plugins, tiny
from .quoted import quoted
from .scene_facts import named

HERE = Path(__file__).parent
VIT_H, VIT_L, IMAGE_REWARD = "ViT-H-14", "ViT-L-14", "ImageReward"  # of planning/rewards.py


@dataclass(frozen=True)
class Node:
    """A node of ComfyUI whose inputs are the reward's weights and precision, if it has any."""

    name: str  # in graphs, after the project's
    title: str
    words: tuple[str, ...]  # that find it
    text: str


@dataclass(frozen=True)
class Kind:
    """How a reward is made, and what others have to know of it before that.

    Its options are the arguments of what makes it, without `device`; those without a default are needed.
    """

    make: str  # "module:name" of this folder
    weights: Mapping[str, str] = field(default_factory=dict)  # option: which of weights.KNOWN it is, if it is empty
    more_files: tuple[str, ...] = ()  # further options that name files
    model: str | Path = (
        ""  # for the planner: the model's sizes, by name or by the folder that has them; empty: no model
    )
    may_change: tuple[str, ...] = ()  # options with which a run goes on if they are others: a server moves
    check_prompt: Callable[[str], object] | None = None  # raises RewardError for one that it cannot score
    node: Node | None = None

    @cached_property
    def outline(self) -> plugins.Outline:
        module, _, name = self.make.partition(":")
        return plugins.outline((HERE / f"{module}.py").read_text("utf-8"), name)

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(name for name in self.outline.takes if name != "device")

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(name for name in self.outline.needs if name != "device")

    @property
    def files(self) -> tuple[str, ...]:
        """Options that name files or folders."""
        return (*self.weights, *self.more_files)

    def load(self) -> Callable[..., Any]:
        """What makes the reward; importing it takes seconds, as torch and transformers come along."""
        module, _, name = self.make.partition(":")
        return getattr(import_module(f".{module}", __package__), name)


@dataclass(frozen=True)
class OwnKind(Kind):
    """A class of the user's own, "package.module:Class"."""

    @cached_property
    def outline(self) -> plugins.Outline:
        return plugins.look(self.make, method="score")

    def load(self) -> Callable[..., Any]:
        return plugins.load(self.make, method="score")


SERVER = ("url", "timeout", "retries", "token_env")  # options of rewards over HTTP
CLIP_L = {"path": "clip-l"}

KINDS: dict[str, Kind] = {
    "hpsv2.1": Kind(
        "clip_kinds:hpsv2_1",
        weights={"path": "hpsv2.1"},
        model=VIT_H,
        node=Node(
            "HPSv2Reward",
            "HPSv2.1 Reward",
            ("human preference", "hps"),
            "Human Preference Score v2.1: which picture of a prompt people prefer. About 0.2 to 0.35.",
        ),
    ),
    "hpsv2": Kind("hpsv2_package:hpsv2", weights={"path": "hpsv2.1"}, model=VIT_H),
    "pickscore": Kind(
        "clip_kinds:pickscore",
        weights={"path": "pickscore"},
        model=VIT_H,
        node=Node(
            "PickScoreReward",
            "PickScore Reward",
            ("human preference",),
            "PickScore v1, a human preference model: which picture of a prompt users of a text-to-image service chose. "
            "About 18 to 24.",
        ),
    ),
    "imagereward": Kind(
        "image_reward:image_reward",
        weights={"path": "imagereward"},
        model=IMAGE_REWARD,
        node=Node(
            "ImageReward",
            "ImageReward",
            ("human preference", "blip"),
            "ImageReward 1.0, a human preference model: which picture of a prompt people prefer. About -2 to 2.",
        ),
    ),
    "clipscore": Kind(
        "clip_kinds:clipscore",
        weights=CLIP_L,
        model=VIT_L,
        node=Node(
            "CLIPScoreReward",
            "CLIPScore Reward",
            ("prompt alignment",),
            "CLIPScore: how well a picture matches its prompt, by OpenAI's CLIP ViT-L/14. 0 to 100, about 15 to 35.",
        ),
    ),
    "aesthetic": Kind("aesthetic:aesthetic", weights={"head": "aesthetic", **CLIP_L}, model=VIT_L),
    "clip": Kind("clip_kinds:clip", more_files=("path",), model=VIT_L),
    "tiny-clip": Kind("clip_kinds:tiny_clip", model=tiny.CLIP),
    "tiny-clip-heldout": Kind("clip_kinds:tiny_clip_heldout", model=tiny.CLIP_HELD_OUT),
    "tiny-scene": Kind(
        "scene:Scene",
        check_prompt=named,
        node=Node(
            "SceneReward",
            "Scene Reward",
            ("counting",),
            "For the embedded scenes: 1 if number, colour and place of the things in a picture are those of its "
            "prompt, otherwise 0. Counted in the pixels, without a model.",
        ),
    ),
    "tiny-scene-clip": Kind("clip_kinds:tiny_scene_clip", model=tiny.SCENES_CLIP),
    "text-preference": Kind("text_preference:text_preference", weights=CLIP_L, model=VIT_L),
    "reference-similarity": Kind(
        "references:reference_similarity", weights=CLIP_L, more_files=("references",), model=VIT_L
    ),
    "ocr": Kind(
        "ocr:OcrReward",
        check_prompt=quoted,
        node=Node(
            "OcrReward",
            "OCR Reward",
            ("text rendering",),
            "Text rendering: whether the text that a prompt has in double quotes can be read in the picture "
            "(Flow-GRPO's reward). 0 to 1.",
        ),
    ),
    "vlm-judge": Kind("vlm:VlmJudge", may_change=SERVER),
    "remote": Kind("remote:RemoteReward", may_change=SERVER),
    "colourfulness": Kind(
        "pixels:Colourfulness",
        node=Node(
            "ColourfulnessReward",
            "Colourfulness Reward",
            ("saturation",),
            "How colourful a picture is (Hasler and Suesstrunk 2003): about 0 (grey) to 100. Needs no model.",
        ),
    ),
    "sharpness": Kind(
        "pixels:Sharpness",
        node=Node(
            "SharpnessReward",
            "Sharpness Reward",
            ("blur",),
            "How crisp a picture is: the mean step in brightness between neighbouring pixels, in levels of 255. Needs "
            "no model.",
        ),
    ),
    "jpeg-compressibility": Kind(
        "pixels:jpeg_compressibility",
        node=Node(
            "JpegReward",
            "JPEG Compressibility Reward",
            ("detail",),
            "High for plain pictures, by their size as JPEG. A negative weight in Combine Rewards asks for detail.",
        ),
    ),
    "jpeg-incompressibility": Kind("pixels:jpeg_incompressibility"),
}
