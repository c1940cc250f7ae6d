"""Neighbor GRPO Step and Neighbor GRPO Train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from comfy_api.latest import io

from ..trainer.config import AUTO, Config, RunSettings, SamplingSettings
from ..trainer.errors import Stopped, UserError
from . import host, policies
from .lora import lora_file, read_lora_file
from .sampling import NEIGHBORHOOD_INPUT, POLICY_INPUT, PROMPTS_INPUT, SOLVER_INPUTS, VAE_INPUT, ready
from .stepping import chosen, next_step
from .wires import (
    CATEGORY,
    LORA,
    REWARD,
    RUN,
    SCORES,
    SETTINGS,
    TRAJECTORIES,
    NamedReward,
    Neighborhood,
    Prompts,
    RolledOut,
    Run,
    Scored,
    Settings,
)

LEARNING_RATE = io.Float.Input(
    "learning_rate",
    default=1e-4,
    min=1e-7,
    max=1.0,
    step=1e-6,
    round=1e-7,
    tooltip="Of AdamW on the LoRA; larger learns faster and breaks sooner. 1e-4 to 3e-4 suits FLUX.1-dev, "
    "1e-3 the embedded model.",
)
GRPO_SETTINGS = SETTINGS.Input("settings", optional=True, tooltip="GRPO Settings; without it the paper's values.")


class Step(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOStep",
            display_name="Neighbor GRPO Step",
            category=CATEGORY,
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
    def execute(
        cls, trajectories: RolledOut, scores: Scored, learning_rate: float, settings: Settings | None = None
    ) -> io.NodeOutput:
        policy = trajectories.policy
        check(policy, trajectories, scores)
        with host.training_mode():
            metrics = take_step(policy, trajectories, scores, settings, learning_rate)
            lora = lora_file(policy.lora, policy.wanted.lora.alpha, {"step": policy.version})
        text = "\n".join(f"{name:<24}{value:12.6g}" for name, value in metrics.items())
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
    policy: policies.Policy, trajectories: RolledOut, scores: Scored, settings: Settings | None, learning_rate: float
) -> dict[str, float]:
    """One iteration's update; the policy's version moves with it."""
    from ..trainer.iteration import all_or_nothing, improve, new_state
    from ..trainer.loop import describe

    setup, group, pairs = next_step(trajectories, scores, settings, learning_rate)
    setup = replace(setup, policy=replace(setup.policy, before_call=host.stop_if_cancelled))
    if policy.state is None:
        policy.state = new_state(setup)
    run, size = setup.config.run, setup.geometry
    try:
        with host.memory_advice(run.micro_batch, size.width, size.height), all_or_nothing(setup, policy.state):
            metrics, skipped = improve(setup, policy.state, group, pairs)
    except Stopped:
        host.raise_if_cancelled()
        raise
    if skipped:
        raise UserError(f"no update: {skipped}; the policy is as it was")
    policy.version += 1
    return {"step": policy.version, **describe(group), **metrics}


class Train(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOTrain",
            display_name="Neighbor GRPO Train",
            category=CATEGORY,
            description="The whole training in one node: fine-tunes a FLUX LoRA by reward (reinforcement learning, "
            "GRPO, RLHF). Cancel saves; 'resume' goes on.",
            is_output_node=True,
            inputs=[
                POLICY_INPUT,
                PROMPTS_INPUT,
                NEIGHBORHOOD_INPUT,
                REWARD.Input(
                    "reward", tooltip="What a good picture is: a reward node, or several through Combine Rewards."
                ),
                io.Int.Input(
                    "iterations",
                    default=300,
                    min=1,
                    max=100000,
                    tooltip="Rollouts, each followed by an update. 300 in the paper; the reward should rise earlier.",
                ),
                LEARNING_RATE,
                io.Int.Input(
                    "prompts_per_iteration",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="P. More prompts make steadier, slower iterations.",
                ),
                *SOLVER_INPUTS,
                io.String.Input(
                    "run_name",
                    default="flux_lora",
                    tooltip="Folder of the run in output/neighbor_grpo: metrics, pictures, checkpoints, the LoRA.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=False,
                    tooltip="Go on with the run of this name. Off: a new folder (name-2, name-3, ...) is made.",
                ),
                io.Int.Input("save_every", default=10, min=1, max=10000, tooltip="Iterations between checkpoints."),
                io.Int.Input(
                    "preview_every",
                    default=1,
                    min=0,
                    max=1000,
                    tooltip="Iterations between preview pictures; 0 shows none.",
                ),
                io.Int.Input(
                    "early_stop",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="Stop when the trained reward has not risen for so many "
                    "iterations (moving average); 0 never.",
                ),
                GRPO_SETTINGS,
                VAE_INPUT,
            ],
            outputs=[
                LORA.Output("lora", display_name="lora", tooltip="The trained LoRA, for Save LoRA or Load LoRA Model."),
                RUN.Output("run", display_name="run", tooltip="The run's folder, for Reward Curve."),
                io.String.Output("summary", display_name="summary", tooltip="Why it ended, and where everything is."),
            ],
        )

    @classmethod
    def validate_inputs(cls, run_name: str) -> bool | str:
        name = run_name.strip()
        return (bool(name) and Path(name).name == name and name not in (".", "..")) or (
            f"run_name {run_name!r} must be the plain name of a folder"
        )

    @classmethod
    def execute(
        cls,
        policy: policies.Policy,
        prompts: Prompts,
        neighborhood: Neighborhood,
        reward: tuple[NamedReward, ...],
        iterations: int,
        learning_rate: float,
        prompts_per_iteration: int,
        solver: str,
        steps: int,
        micro_batch: int,
        run_name: str,
        resume: bool,
        save_every: int,
        preview_every: int,
        early_stop: int,
        settings: Settings | None = None,
        vae: object | None = None,
    ) -> io.NodeOutput:
        grpo, optimizer = chosen(
            settings,
            learning_rate,
            neighborhood.group_size,
            steps,
            prompts_per_iteration=prompts_per_iteration,
            strength=neighborhood.strength,
        )
        folder = run_folder(run_name.strip(), resume)
        config = Config(
            model=policy.wanted.model,
            lora=policy.wanted.lora,
            prompts=prompts.texts,
            rewards=tuple(r.settings for r in reward),
            sampling=SamplingSettings(neighborhood.width, neighborhood.height, steps, solver, AUTO),
            grpo=grpo,
            optimizer=optimizer,
            run=RunSettings(
                folder=str(folder),
                iterations=iterations,
                seed=neighborhood.seed,
                micro_batch=micro_batch,
                save_every=save_every,
            ),
        )
        rewards = {r.settings.label: r.reward for r in reward}
        lora, reason = train(config, policy, prompts, rewards, vae, resume, host.Progress(preview_every), early_stop)
        host.raise_if_cancelled()
        summary = f"{reason}: {folder}"
        return io.NodeOutput(lora, Run(folder), summary, ui={"text": (summary,)})


def train(config, policy, prompts, rewards, vae, resume, progress, early_stop) -> tuple[dict, str]:
    """Run the engine on a LoRA of its own: the policy stays as it was, the result depends on the node's inputs."""
    from ..trainer.early_stop import EarlyStop
    from ..trainer.lock import exclusive
    from ..trainer.run import LORA as LORA_FILE
    from ..trainer.run import start_run
    from ..trainer.setup import assemble

    device = config.model.device
    host.free_models()
    stop = EarlyStop(config.weights, early_stop)
    busy = f"another training is running on {device}: wait for it, or cancel it"
    advice = host.memory_advice(config.run.micro_batch, config.sampling.width, config.sampling.height)
    with host.training_mode(), exclusive(f"device {device}", busy), advice:
        flux, lora = policies.fresh_lora(ready(policy.flux, vae, host.stop_if_cancelled), policy.wanted)
        try:
            reason, _ = start_run(
                config,
                resume=resume,
                listeners=[progress, stop],
                should_stop=stop.reached,
                load=lambda config: assemble(config, flux, lora, prompts.conditioning, rewards),
            )
            return read_lora_file(Path(config.run.folder) / LORA_FILE), reason
        finally:
            policies.drop_lora(flux)


def run_folder(name: str, resume: bool) -> Path:
    """The newest folder of a name to go on with, or one that is not there yet."""
    folder, n = host.runs_folder() / name, 1
    taken = []
    while folder.exists():
        taken.append(folder)
        n += 1
        folder = host.runs_folder() / f"{name}-{n}"
    return taken[-1] if resume and taken else folder
