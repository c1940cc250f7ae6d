"""Rewards as nodes, and what makes scores of pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io

from ..trainer.config import RewardSettings
from ..trainer.errors import Stopped, UserError
from . import host
from .wires import CATEGORY, REWARD, SCORES, TRAJECTORIES, NamedReward, RolledOut, Scored, searched_by

if TYPE_CHECKING:
    from ..trainer.rewards import Reward

FOLDER = "rewards"  # models/rewards: one CLIPModel folder each
SOCKETS = 4
SCORE_OUTPUTS = [
    SCORES.Output("scores", display_name="scores", tooltip="For Neighbor GRPO Step and Tile Neighborhood."),
    io.String.Output("table", display_name="table", tooltip="The scores, readable."),
]
REWARD_OUTPUT = REWARD.Output(
    "reward", display_name="reward", tooltip="For Neighbor GRPO Train, Score Images and Combine Rewards."
)


def register_folder() -> None:
    """Let users keep reward models in models/rewards, or wherever extra_model_paths.yaml says."""
    from pathlib import Path

    from ..trainer.rewards.weights import look_in

    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    look_in(folder_paths.get_folder_paths(FOLDER))


def reward_folders() -> dict[str, str]:
    """Folders with a config.json in models/rewards, by name."""
    from pathlib import Path

    roots = [Path(p) for p in folder_paths.get_folder_paths(FOLDER)]
    return {p.parent.name: str(p.parent) for root in roots for p in sorted(root.glob("*/config.json"))}


def build(kind: str, **options: object) -> tuple[NamedReward]:
    from ..trainer.rewards import build as build_reward

    with host.training_mode():
        return (NamedReward(RewardSettings(kind, options=options), build_reward(kind, options, host.device())),)


def by_label(rewards: tuple[NamedReward, ...]) -> dict[str, Reward]:
    return {r.settings.label: r.reward for r in rewards}


class ClipReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOClipReward",
            display_name="CLIP Reward",
            category=CATEGORY,
            **searched_by("reward", "score"),
            description="How well a picture matches its prompt, by any CLIP model of transformers; PickScore (human "
            "preference) is one.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=["embedded", "embedded held-out", *reward_folders()],
                    default="embedded",
                    tooltip="A CLIPModel folder in models/rewards, or one of the two "
                    "small ones for the embedded model.",
                ),
                io.Combo.Input(
                    "scale",
                    options=["cosine", "logit"],
                    tooltip="cosine: -1 to 1. logit: times the model's own scale, which is how PickScore is defined.",
                ),
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        if model.startswith("embedded") or model in reward_folders():
            return True
        return (
            f"there is no reward model {model!r}: put its folder (config.json, "
            "model.safetensors, ...) into models/rewards"
        )

    @classmethod
    def execute(cls, model: str, scale: str) -> io.NodeOutput:
        if model.startswith("embedded"):
            return io.NodeOutput(build("tiny-clip-heldout" if model.endswith("held-out") else "tiny-clip"))
        (named,) = build("clip", path=reward_folders()[model], scale=scale)
        return io.NodeOutput((replace(named, settings=replace(named.settings, name=model)),))


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


class CombineRewards(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sockets = []
        for n in range(1, SOCKETS + 1):
            sockets += [
                REWARD.Input(f"reward_{n}", optional=True, tooltip="A reward, or several that are combined already."),
                io.Float.Input(
                    f"weight_{n}",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="Share in the sum of the advantages; a negative one asks for less of it. Not 0.",
                ),
                io.Boolean.Input(
                    f"held_out_{n}",
                    default=False,
                    tooltip="Watched and drawn, never trained on: this is how reward hacking shows.",
                ),
            ]
        return io.Schema(
            node_id="NeighborGRPOCombineRewards",
            display_name="Combine Rewards",
            category=CATEGORY,
            **searched_by("reward", "weighted sum"),
            description="Several rewards as one, each with a weight. Its output fits its "
            "own sockets, for more than four.",
            inputs=sockets,
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def execute(cls, **inputs: object) -> io.NodeOutput:
        combined: list[NamedReward] = []
        for n in range(1, SOCKETS + 1):
            for named in inputs.get(f"reward_{n}") or ():
                weight, held_out = inputs[f"weight_{n}"], inputs[f"held_out_{n}"]
                settings = replace(
                    named.settings,
                    name=unused(named.settings.label, [c.settings.label for c in combined]),
                    weight=named.settings.weight * weight,
                    held_out=named.settings.held_out or held_out,
                )
                combined.append(replace(named, settings=settings))
        if not combined:
            raise UserError("Combine Rewards has no reward: connect at least one")
        return io.NodeOutput(tuple(combined))


def unused(label: str, labels: list[str]) -> str:
    name, n = label, 2
    while name in labels:
        name, n = f"{label}-{n}", n + 1
    return name


class ScoreImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOScoreImages",
            display_name="Score Images",
            category=CATEGORY,
            **searched_by("reward", "rate"),
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
    def execute(cls, trajectories: RolledOut, images: object, reward: tuple[NamedReward, ...]) -> io.NodeOutput:
        from ..trainer.rewards import on_device, score_all

        expected = len(trajectories.texts)
        if len(images) != expected:
            raise UserError(f"Score Images got {len(images)} pictures, the rollout has {expected}: connect its images")
        with host.training_mode():
            device = trajectories.setup.policy.device
            pixels = images.clone().movedim(-1, 1).to(device).float()
            rewards = by_label(reward)
            try:
                with on_device(rewards.values(), device, stay=False):  # the next rollout needs the room
                    scores = score_all(rewards, pixels, trajectories.texts)
            except Stopped:
                host.raise_if_cancelled()
                raise
        group_size = trajectories.setup.config.grpo.group_size
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
            **searched_by("reward", "float list"),
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
    def execute(cls, trajectories: list[RolledOut], values: list, name: list[str]) -> io.NodeOutput:
        import torch

        rolled_out = trajectories[0]
        flat = [float(v) for value in values for v in (value if isinstance(value, list | tuple) else [value])]
        if len(flat) != len(rolled_out.texts):
            raise UserError(
                f"Scores from Values got {len(flat)} numbers, the rollout has {len(rolled_out.texts)} pictures"
            )
        with host.training_mode():
            scores = torch.tensor(flat, device=rolled_out.setup.policy.device)
            scores = scores.view(-1, rolled_out.setup.config.grpo.group_size)
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
