"""Neighbor GRPO Step: one update of the policy."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..trainer.device import training_on
from ..trainer.errors import Stopped, UserError
from . import host, policies
from .lora import lora_file
from .newer import searched_by
from .recording import record
from .run_folders import is_plain, not_plain
from .settings import GRPO_SETTINGS, LEARNING_RATE
from .stepping import next_step
from .wires import CATEGORY, LORA, SCORES, TRAJECTORIES, RolledOut, Scored, Settings


class Step(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOStep",
            display_name="Neighbor GRPO Step",
            category=CATEGORY,
            **searched_by("rlhf", "reinforcement learning"),
            description="One update of the policy by the scores of its candidates. With "
            "auto queue, every run is a step.",
            is_output_node=True,
            inputs=[
                TRAJECTORIES.Input(
                    "trajectories", tooltip="By Neighborhood Rollout: the policy that drew them is trained."
                ),
                SCORES.Input("scores", tooltip="Of the same rollout: by Score Images or Scores from Values."),
                LEARNING_RATE,
                GRPO_SETTINGS,
                io.String.Input(
                    "run_name",
                    optional=True,
                    default="steps",
                    tooltip="Folder in output/neighbor_grpo where the steps are kept for the panel: metrics, pictures. "
                    "Each policy gets one of its own (name-2, name-3, ...). Empty: nothing is kept.",
                ),
            ],
            outputs=[
                LORA.Output(
                    "lora", display_name="lora", tooltip="The LoRA after the step, for Save LoRA or Load LoRA Model."
                ),
                io.String.Output("metrics", display_name="metrics", tooltip="What the step did, readable."),
                io.Float.Output(
                    "reward", display_name="reward", tooltip="Mean of the first trained reward over the candidates."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, run_name: str = "") -> bool | str:
        return is_plain(run_name) or not run_name.strip() or not_plain(run_name)

    @classmethod
    def execute(
        cls,
        trajectories: RolledOut,
        scores: Scored,
        learning_rate: float,
        settings: Settings | None = None,
        run_name: str = "steps",
    ) -> io.NodeOutput:
        policy = trajectories.policy
        check(policy, trajectories, scores)
        device = policy.wanted.model.device
        with training_on(device), policy.at_work(trajectories.setup.config):
            metrics = take_step(policy, trajectories, scores, settings, learning_rate, run_name.strip())
            lora = lora_file(policy, {"step": policy.version})
        text = host.readable(f"{name:<24}{value:12.6g}" for name, value in metrics.items())
        first = next(r.label for r in scores.rewards if not r.held_out)
        return io.NodeOutput(lora, text, float(scores.scores[first].mean()), ui={"text": (text,)})


def check(policy: policies.Policy, trajectories: RolledOut, scores: Scored) -> None:
    if scores.of is not trajectories:
        raise UserError(
            "these scores belong to other trajectories: score the images of the rollout that is connected here"
        )
    behind = policy.version - trajectories.version
    if behind > 1:
        raise UserError(
            f"these trajectories are {behind} updates old: queue again, so that the "
            "rollout is drawn by the policy of now"
        )
    if not any(not r.held_out for r in scores.rewards):
        raise UserError("all rewards are held out: train on at least one")


def take_step(
    policy: policies.Policy,
    trajectories: RolledOut,
    scores: Scored,
    settings: Settings | None,
    learning_rate: float,
    run_name: str,
) -> dict[str, float]:
    """One iteration's update, recorded under `run_name` if there is one; the policy's version moves with it."""
    from ..trainer.engine.grpo import all_or_nothing, improve
    from ..trainer.engine.state import new_state, set_optimizer
    from ..trainer.training.report import describe

    setup, group, pairs = next_step(trajectories, scores, settings, learning_rate, policy.flux.device)
    setup = replace(setup, policy=replace(setup.policy, before_call=host.stop_if_cancelled))
    if policy.state is None:
        policy.state = new_state(setup)
    set_optimizer(policy.state, setup.config.optimizer)  # the settings may have changed since the last step
    try:
        with all_or_nothing(setup, policy.state):
            metrics, skipped = improve(setup, policy.state, group, pairs)
    except Stopped:
        host.raise_if_cancelled()
        raise
    if skipped:
        raise UserError(f"no update: {skipped}; the policy is as it was")
    policy.moved()
    metrics = {**describe(group), **metrics}
    if run_name:
        step = policy.version - 1
        policy.recording = record(policy.recording, run_name, setup, group, pairs, metrics, step)
    return {"step": policy.version, **metrics}
