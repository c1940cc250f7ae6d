"""The nodes, as one extension of ComfyUI.

ComfyUI imports this at every start: what is slow to import (diffusers, peft, the trainer) belongs inside the functions.
"""

import logging
import re
from pathlib import Path

MINIMUM = "0.3.75"

try:
    from comfy_api.latest import ComfyExtension, io
except ImportError:  # a ComfyUI without this API never calls `comfy_entrypoint`, so this is the place to tell
    logging.error(f"Neighbor GRPO needs ComfyUI {MINIMUM} or newer: update ComfyUI")
    ComfyExtension = object


class NeighborGRPO(ComfyExtension):
    async def get_node_list(self) -> "list[type[io.ComfyNode]]":
        from . import rewards, scores
        from .encode import EncodeImage
        from .host import explained
        from .lora import SaveLora
        from .noise import CandidateNoise, NoiseNeighborhood
        from .pictures import RewardCurve, TileNeighborhood
        from .plan import MemoryPlanNode
        from .policy import LoadPolicy
        from .prompts import PromptSet
        from .reward_nodes import reward_nodes
        from .rollout import Rollout
        from .settings import GrpoSettingsNode
        from .step import Step
        from .strength import LoraStrength
        from .training import Train
        from .values import ImageValues

        nodes: list[type[io.ComfyNode]] = [
            *(LoadPolicy, PromptSet, NoiseNeighborhood, EncodeImage, Rollout),
            *reward_nodes(),
            *(rewards.CombineRewards, rewards.BoundReward),
            *(scores.ScoreImages, scores.ScoresFromValues, ImageValues),
            *(GrpoSettingsNode, Step, Train, SaveLora, LoraStrength),
            *(TileNeighborhood, RewardCurve, CandidateNoise, MemoryPlanNode),
        ]
        return [explained(node) for node in nodes]


class Nothing(ComfyExtension):
    """What a second copy of the pack adds."""

    async def get_node_list(self) -> "list[type[io.ComfyNode]]":
        return []


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls to get the nodes.

    Raises:
        RuntimeError: this ComfyUI is too old. ComfyUI logs the message, without a stack trace.
    """
    from comfyui_version import __version__ as found

    if _numbers(found) < _numbers(MINIMUM):
        raise RuntimeError(f"Neighbor GRPO needs ComfyUI {MINIMUM} or newer, this is {found}: update ComfyUI")
    from .routes import give_way, other_copy, register

    if there := other_copy():
        here = Path(__file__).absolute().parents[1]
        logging.error(f"Neighbor GRPO is installed twice: {there} is used, {here} is not; remove one of them")
        give_way(here)
        return Nothing()
    from .reward_files import register_folder

    register_folder()
    register()
    return NeighborGRPO()


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
