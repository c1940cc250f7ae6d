"""What makes scores of pictures, for training step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..trainer.device import training_on
from ..trainer.errors import Stopped, UserError
from ..trainer.settings.config import RewardSettings
from . import host
from .newer import searched_by
from .rewards import by_label
from .wires import CATEGORY, REWARD, SCORES, TRAJECTORIES, NamedReward, RolledOut, Scored

if TYPE_CHECKING:
    from torch import Tensor

SCORE_OUTPUTS = [
    SCORES.Output("scores", display_name="scores", tooltip="For Neighbor GRPO Step and Tile Neighborhood."),
    io.String.Output("table", display_name="table", tooltip="The scores, readable."),
]


class ScoreImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOScoreImages",
            display_name="Score Images",
            category=CATEGORY,
            **searched_by("rate"),
            description="Scores the candidates of a rollout by a reward, for training step by step.",
            inputs=[
                TRAJECTORIES.Input("trajectories", tooltip="Of the Neighborhood Rollout whose pictures are scored."),
                io.Image.Input(
                    "images", tooltip="The rollout's pictures, in their order (changed as you like in between)."
                ),
                REWARD.Input("reward", tooltip="A reward node, or several through Combine Rewards."),
            ],
            outputs=SCORE_OUTPUTS,
        )

    @classmethod
    def execute(cls, trajectories: RolledOut, images: Tensor, reward: tuple[NamedReward, ...]) -> io.NodeOutput:
        from ..trainer.rewards.base import check_images, on_device, scores_of

        expected = len(trajectories.texts)
        if len(images) != expected:
            raise UserError(f"Score Images got {len(images)} pictures, the rollout has {expected}: connect its images")
        config, policy = trajectories.setup.config, trajectories.policy
        device = config.model.device
        host.free_models(device, keep=policy.residence)  # the step needs it there
        with host.training_mode(), training_on(device), host.memory_advice(config):
            pixels = images.clone().movedim(-1, 1).to(device).float()
            scores = {}
            try:
                check_images(pixels, trajectories.texts)
                for name, one in by_label(reward).items():
                    with on_device([one], device, stay=False):  # the next rollout needs the room
                        scores[name] = scores_of(name, one, pixels, trajectories.texts).cpu()
            except Stopped:
                host.raise_if_cancelled()
                raise
        group_size = config.grpo.group_size
        groups = {name: values.view(-1, group_size) for name, values in scores.items()}
        scored = Scored(trajectories, groups, tuple(r.settings for r in reward))
        return io.NodeOutput(scored, table(scored))


class ScoresFromValues(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOScoresFromValues",
            display_name="Scores from Values",
            category=CATEGORY,
            **searched_by("float list"),
            description="Any list of numbers as scores, one for each picture: so any node can be a reward.",
            is_input_list=True,
            inputs=[
                TRAJECTORIES.Input("trajectories", tooltip="Of the Neighborhood Rollout whose pictures are scored."),
                io.Float.Input(
                    "values",
                    force_input=True,
                    tooltip="One number for each picture of the rollout, in its order. Larger is better.",
                ),
                io.String.Input("name", default="values", tooltip="What the reward is called in tables and curves."),
            ],
            outputs=SCORE_OUTPUTS,
        )

    @classmethod
    def execute(
        cls, trajectories: list[RolledOut], values: list[float | list[float]], name: list[str]
    ) -> io.NodeOutput:
        import torch

        rolled_out = trajectories[0]
        flat = [float(v) for value in values for v in (value if isinstance(value, list | tuple) else [value])]
        if len(flat) != len(rolled_out.texts):
            raise UserError(
                f"Scores from Values got {len(flat)} numbers, the rollout has {len(rolled_out.texts)} pictures"
            )
        with host.training_mode():
            scores = torch.tensor(flat).view(-1, rolled_out.setup.config.grpo.group_size)
        scored = Scored(rolled_out, {name[0]: scores}, (RewardSettings("values", name=name[0]),))
        return io.NodeOutput(scored, table(scored))


def table(scored: Scored) -> str:
    """One line a candidate: prompt, number, every reward's score."""
    names = list(scored.scores)
    rows = ["candidate  " + "  ".join(f"{name:>18}" for name in names) + "  prompt"]
    group_size = scored.of.setup.config.grpo.group_size
    values = {name: s.flatten().tolist() for name, s in scored.scores.items()}
    for n, text in enumerate(scored.of.texts):
        cells = "  ".join(f"{values[name][n]:18.4f}" for name in names)
        rows.append(f"{n % group_size:9}  {cells}  {text}")
    return host.readable(rows)
