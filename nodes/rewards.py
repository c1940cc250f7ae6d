"""Rewards as nodes: building one, combining several, bounding one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from comfy_api.latest import io

from ..trainer.choices import AUTO
from ..trainer.errors import UserError
from ..trainer.settings.config import RewardSettings
from . import host
from .inputs import setting_input
from .newer import rare, searched_by
from .wires import CATEGORY, REWARD, NamedReward

if TYPE_CHECKING:
    from ..trainer.rewards.base import Reward
    from ..trainer.rewards.transport import Server

SOCKETS = 4
REWARD_OUTPUT = REWARD.Output(
    "reward", display_name="reward", tooltip="For Neighbor GRPO Train, Score Images and Combine Rewards."
)


@runtime_checkable
class Served(Protocol):
    """A reward of a server, whose answer is waited for."""

    server: Server


def build(kind: str, **options: object) -> tuple[NamedReward]:
    """The reward, in host memory, where it waits to be used; in the precision that suits ComfyUI's device."""
    from ..trainer.rewards import build as build_reward
    from ..trainer.rewards.base import pick_dtype

    auto = options.get("dtype") == AUTO
    given = options | {"dtype": str(pick_dtype(AUTO, host.device())).removeprefix("torch.")} if auto else options
    with host.training_mode():
        reward = build_reward(kind, given, "cpu")
    if isinstance(reward, Served):
        reward.server.while_waiting = host.stop_if_cancelled
    return (NamedReward(RewardSettings(kind, options=options), reward),)


def server_inputs(asked: str) -> list[io.Input]:
    """What a reward's server needs beside its address; `asked` is what it has to answer."""
    return rare(
        io.Float.Input(
            "timeout",
            default=120.0,
            min=1.0,
            max=3600.0,
            step=1.0,
            tooltip=f"Seconds in which the server has to answer {asked}, before it is asked again.",
        ),
        io.String.Input(
            "token_env",
            default="",
            tooltip="Name of the environment variable that holds the server's token, if it wants one. The token itself "
            "is never stored.",
        ),
    )


def by_label(rewards: tuple[NamedReward, ...]) -> dict[str, Reward]:
    return {r.settings.label: r.reward for r in rewards}


class CombineRewards(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sockets = []  # not io.Autogrow: it adds sockets without their weights, and saved graphs' would have other names
        for n in range(1, SOCKETS + 1):
            sockets += [
                REWARD.Input(f"reward_{n}", optional=True, tooltip="A reward, or several that are combined already."),
                setting_input(RewardSettings, "weight", f"weight_{n}"),
                setting_input(RewardSettings, "held_out", f"held_out_{n}"),
            ]
        return io.Schema(
            node_id="NeighborGRPOCombineRewards",
            display_name="Combine Rewards",
            category=CATEGORY,
            **searched_by("weighted sum"),
            description="Several rewards as one, each with a weight. Its output fits its "
            "own sockets, for more than four.",
            inputs=sockets,
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
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


class BoundReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOBoundReward",
            display_name="Bound Reward",
            category=CATEGORY,
            **searched_by("clamp"),
            description="Bounds of a reward in training: beyond them there is nothing to gain. Tables and curves show "
            "the score as it is.",
            inputs=[
                REWARD.Input("reward", tooltip="A reward node. Of several that are combined, each gets the bounds."),
                io.Float.Input(
                    "lowest",
                    default=-1e6,
                    min=-1e6,
                    max=1e6,
                    step=0.01,
                    tooltip="A score below counts as this one. In the reward's own unit.",
                ),
                io.Float.Input(
                    "highest",
                    default=1e6,
                    min=-1e6,
                    max=1e6,
                    step=0.01,
                    tooltip="A score above counts as this one. In the reward's own unit; above 'lowest'.",
                ),
            ],
            # not called reward: an input is already
            outputs=[REWARD.Output("bounded", display_name="bounded", tooltip="The same reward with its bounds.")],
        )

    @classmethod
    def validate_inputs(cls, lowest: float, highest: float) -> bool | str:
        return lowest < highest or f"lowest {lowest:g} must be below highest {highest:g}"

    @classmethod
    def execute(cls, reward: tuple[NamedReward, ...], lowest: float, highest: float) -> io.NodeOutput:
        bounded = (replace(named, settings=replace(named.settings, clip=(lowest, highest))) for named in reward)
        return io.NodeOutput(tuple(bounded))
