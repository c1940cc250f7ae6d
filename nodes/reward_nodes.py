"""The reward nodes: those that the table of rewards describes, made here, beside those with a class of their own."""

from __future__ import annotations

from typing import ClassVar

from comfy_api.latest import io

from ..trainer.rewards.table import KINDS, Node
from . import clip_rewards, judges, remote_reward, taste_rewards
from .newer import searched_by
from .reward_files import DTYPE, known, path_of, weights_input
from .rewards import REWARD_OUTPUT, build
from .wires import CATEGORY

OWN = {
    "aesthetic": clip_rewards.AestheticReward,
    "clip": clip_rewards.ClipReward,
    "text-preference": taste_rewards.TextPreferenceReward,
    "reference-similarity": taste_rewards.ReferenceSimilarityReward,
    "vlm-judge": judges.VlmJudge,
    "remote": remote_reward.RemoteReward,
}


class RewardNode(io.ComfyNode):
    """The node of a reward that the table describes."""

    kind: ClassVar[str]
    node: ClassVar[Node]

    @classmethod
    def define_schema(cls) -> io.Schema:
        node = cls.node
        return io.Schema(
            node_id=f"NeighborGRPO{node.name}",
            display_name=node.title,
            category=CATEGORY,
            **searched_by(*node.words),
            description=node.text,
            inputs=cls.model_inputs(),
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def model_inputs(cls) -> list[io.Input]:
        return []


class PlainReward(RewardNode):
    """The node of a reward without inputs."""

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(build(cls.kind))


class ModelReward(RewardNode):
    """The node of a reward with a model."""

    @classmethod
    def model_inputs(cls) -> list[io.Input]:
        return [weights_input(KINDS[cls.kind].weights["path"]), DTYPE]

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return known(model, KINDS[cls.kind].weights["path"])

    @classmethod
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        return io.NodeOutput(build(cls.kind, path=path_of(model), dtype=precision))


def reward_nodes() -> list[type[io.ComfyNode]]:
    """In the table's order."""
    nodes: list[type[io.ComfyNode]] = []
    for kind, entry in KINDS.items():
        if kind in OWN:
            nodes.append(OWN[kind])
        elif entry.node:
            base = ModelReward if entry.weights else PlainReward
            nodes.append(type(entry.node.name, (base,), {"kind": kind, "node": entry.node}))
    return nodes
