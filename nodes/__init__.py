"""The nodes, as one extension of ComfyUI.

ComfyUI imports this at every start: what is slow to import (diffusers, peft, the trainer) belongs inside the functions.
"""

import logging
import re

MINIMUM = "0.3.75"

try:
    from comfy_api.latest import ComfyExtension, io
except ImportError:  # a ComfyUI without this API never calls `comfy_entrypoint`, so this is the place to tell
    logging.error(f"Neighbor GRPO needs ComfyUI {MINIMUM} or newer: update ComfyUI")
    ComfyExtension = object


class NeighborGRPO(ComfyExtension):
    async def get_node_list(self) -> "list[type[io.ComfyNode]]":
        from .clip_rewards import AestheticReward, CLIPScoreReward, HPSv2Reward, PickScoreReward
        from .judges import ImageReward, OcrReward, VlmJudge
        from .lora import SaveLora
        from .noise import NoiseNeighborhood
        from .pictures import RewardCurve, TileNeighborhood
        from .policy import LoadPolicy
        from .prompts import PromptSet
        from .remote_reward import RemoteReward
        from .rewards import ClipReward, ColourfulnessReward, CombineRewards, JpegReward, ScoreImages, ScoresFromValues
        from .rollout import Rollout
        from .settings import GrpoSettingsNode
        from .step import Step
        from .taste_rewards import ReferenceSimilarityReward, SharpnessReward, TextPreferenceReward
        from .training import Train
        from .values import ImageValues

        sampling = [LoadPolicy, PromptSet, NoiseNeighborhood, Rollout]
        rewards = [ClipReward, ColourfulnessReward, JpegReward, CombineRewards, ScoreImages, ScoresFromValues]
        rewards += [RemoteReward]
        preferences = [HPSv2Reward, PickScoreReward, CLIPScoreReward, AestheticReward]
        tastes = [TextPreferenceReward, ReferenceSimilarityReward, SharpnessReward]
        judges = [ImageReward, OcrReward, VlmJudge]
        training = [GrpoSettingsNode, Step, Train, SaveLora]
        return [
            *sampling,
            *rewards,
            *preferences,
            *tastes,
            *judges,
            ImageValues,
            *training,
            TileNeighborhood,
            RewardCurve,
        ]


async def comfy_entrypoint() -> NeighborGRPO:
    """What ComfyUI calls to get the nodes.

    Raises:
        RuntimeError: this ComfyUI is too old. ComfyUI logs the message, without a stack trace.
    """
    from comfyui_version import __version__ as found

    if _numbers(found) < _numbers(MINIMUM):
        raise RuntimeError(f"Neighbor GRPO needs ComfyUI {MINIMUM} or newer, this is {found}: update ComfyUI")
    from .rewards import register_folder
    from .routes import register

    register_folder()
    register()
    return NeighborGRPO()


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
