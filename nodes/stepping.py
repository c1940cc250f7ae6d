"""From trajectories and scores to what a step trains, the same for Step and for the contact sheet that announces it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..trainer.settings.config import GrpoSettings, OptimizerSettings
from .settings import DEFAULTS
from .wires import RolledOut, Scored, Settings

if TYPE_CHECKING:
    from ..trainer.device import Device
    from ..trainer.engine.grpo import Group
    from ..trainer.engine.state import Setup
    from ..trainer.stages.anchors import Pairs


def chosen(
    settings: Settings | None, learning_rate: float, group_size: int, **grpo: Any
) -> tuple[GrpoSettings, OptimizerSettings]:
    """The settings of the optional node, with what the graph decides elsewhere."""
    settings = settings or DEFAULTS
    return (
        replace(settings.grpo, group_size=group_size, **grpo),
        replace(settings.optimizer, learning_rate=learning_rate),
    )


def bent(former: Mapping[str, Any], group_size: int, steps: int) -> dict[str, Any]:
    """Former defaults of the section grpo, whose numbers bent to a small group and to few steps."""
    most = {"anchors": group_size, "trained_steps": steps}
    return {name: min(value, most[name]) if name in most else value for name, value in former.items()}


def next_step(
    rolled_out: RolledOut,
    scored: Scored,
    settings: Settings | None,
    learning_rate: float = DEFAULTS.optimizer.learning_rate,
    device: Device = "cpu",
) -> tuple[Setup, Group, Pairs]:
    """The setup, the judged candidates on `device`, and the drawn triples of the step these scores lead to."""
    from ..trainer.engine.grpo import judge, pairs_of, trained_steps

    rolled = rolled_out.setup.config
    grpo, optimizer = chosen(
        settings,
        learning_rate,
        rolled.grpo.group_size,
        prompts_per_iteration=rolled.grpo.prompts_per_iteration,
        strength=rolled.grpo.strength,
    )
    config = replace(rolled, grpo=grpo, optimizer=optimizer, rewards=scored.rewards)
    setup = rolled_out.setup.under(config)
    drawn = rolled_out.candidates.trajectories.only(trained_steps(setup, rolled_out.version))
    candidates = replace(rolled_out.candidates, trajectories=drawn.to(device))
    group = judge(config, candidates, {name: scores.to(device) for name, scores in scored.scores.items()})
    return setup, group, pairs_of(setup, group, rolled_out.version)
