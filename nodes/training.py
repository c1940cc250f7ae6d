"""Neighbor GRPO Train: the whole loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..trainer.choices import AUTO
from ..trainer.diagnosis import CHECKS
from ..trainer.settings.config import Config, EvaluationSettings, GrpoSettings, InitSettings, RunSettings
from ..trainer.settings.described import described
from ..trainer.training.run_folder import defaults_of
from . import host, policies, service
from .inputs import setting_input
from .latents import begun, ready
from .lora import read_lora_file
from .newer import rare, searched_by
from .rewards import by_label
from .rollout import INIT_INPUTS, NEIGHBORHOOD_INPUT, POLICY_INPUT, PROMPTS_INPUT, SOLVER_INPUTS, VAE_INPUT, sampling
from .run_folders import is_plain, not_plain, run_folder
from .settings import GRPO_SETTINGS, LEARNING_RATE
from .stepping import bent, chosen
from .wires import (
    CATEGORY,
    LORA,
    PROMPTS,
    REWARD,
    RUN,
    LoraFile,
    NamedReward,
    Neighborhood,
    Prompts,
    Run,
    Settings,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..trainer.events import Ending
    from ..trainer.rewards.base import Reward
    from ..trainer.stages.inpainting import Init

NOTHING, ANY = "nothing", "any problem"
EVALUATE_EVERY = 25  # not the setting's 0: whoever connects prompts wants to see how their pictures change


class Train(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOTrain",
            display_name="Neighbor GRPO Train",
            category=CATEGORY,
            **searched_by("rlhf", "reinforcement learning", "fine-tune", "lora training"),
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
                setting_input(RunSettings, "iterations"),
                LEARNING_RATE,
                setting_input(GrpoSettings, "prompts_per_iteration"),
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
                *rare(
                    setting_input(RunSettings, "save_every"),
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
                ),
                GRPO_SETTINGS,
                VAE_INPUT,
                *rare(setting_input(RunSettings, "offload_rewards", optional=True)),
                PROMPTS.Input(
                    "evaluation",
                    optional=True,
                    tooltip="Prompts to look at: pictures of fixed seeds, drawn before, during and after the training.",
                ),
                *rare(
                    setting_input(EvaluationSettings, "every", "evaluate_every", optional=True, default=EVALUATE_EVERY),
                    setting_input(
                        RunSettings, "stop_on", optional=True, options=[NOTHING, ANY, *CHECKS], default=NOTHING
                    ),
                ),
                *INIT_INPUTS,
                *rare(
                    io.String.Input(
                        "keep_tiles",
                        optional=True,
                        default=RunSettings.keep_tiles,
                        tooltip=described(RunSettings, "keep_tiles").help,
                    ),
                    io.Int.Input(
                        "rollout_batch",
                        optional=True,
                        default=0,
                        min=0,
                        max=128,
                        tooltip="Candidates in the model at once while they are drawn, which takes less memory than "
                        "the update. 0: as many as there is room for; on the CPU as many as micro_batch.",
                    ),
                ),
            ],
            outputs=[
                LORA.Output("lora", display_name="lora", tooltip="The trained LoRA, for Save LoRA or Load LoRA Model."),
                RUN.Output("run", display_name="run", tooltip="The run's folder, for Reward Curve."),
                io.String.Output("summary", display_name="summary", tooltip="Why it ended, and where everything is."),
            ],
        )

    @classmethod
    def validate_inputs(cls, run_name: str) -> bool | str:
        return (bool(run_name.strip()) and is_plain(run_name)) or not_plain(run_name)

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
        offload_rewards: bool = RunSettings.offload_rewards,
        evaluation: Prompts | None = None,
        evaluate_every: int = EVALUATE_EVERY,
        stop_on: str = NOTHING,
        latent: dict[str, Any] | None = None,
        denoise: float = InitSettings.denoise,
        mask: Tensor | None = None,
        keep_tiles: str = RunSettings.keep_tiles,
        rollout_batch: int = 0,
    ) -> io.NodeOutput:
        folder = run_folder(run_name.strip(), resume)
        former = defaults_of(folder).get("grpo", {}) if resume and settings is None else {}
        grpo, optimizer = chosen(
            settings,
            learning_rate,
            neighborhood.group_size,
            prompts_per_iteration=prompts_per_iteration,
            strength=neighborhood.strength,
            **bent(former, neighborhood.group_size, steps),
        )
        init, inits = begun(latent, denoise, mask, neighborhood, len(prompts.texts))
        config = Config(
            model=policy.wanted.model,
            lora=policy.wanted.lora,
            prompts=prompts.texts,
            rewards=tuple(r.settings for r in reward),
            sampling=sampling(neighborhood, steps, solver),
            grpo=grpo,
            optimizer=optimizer,
            run=RunSettings(
                folder=str(folder),
                iterations=iterations,
                seed=neighborhood.seed,
                micro_batch=micro_batch,
                rollout_batch=rollout_batch or AUTO,
                save_every=save_every,
                keep_tiles=keep_tiles,
                offload_rewards=offload_rewards,
                stop_on={NOTHING: (), ANY: tuple(CHECKS)}.get(stop_on, (stop_on,)),
            ),
            evaluation=EvaluationSettings(evaluation.texts if evaluation else (), evaluate_every),
            init=init,
        )
        progress = host.Progress(preview_every)
        rewards = by_label(reward)
        lora, ending = train(config, policy, prompts, evaluation, rewards, vae, inits, resume, progress, early_stop)
        host.raise_if_cancelled()
        summary = f"{ending}: {folder}"
        return io.NodeOutput(lora, Run(folder), summary, ui={"text": (summary,)})


def train(
    config: Config,
    policy: policies.Policy,
    prompts: Prompts,
    evaluation: Prompts | None,
    rewards: Mapping[str, Reward],
    vae: object | None,
    inits: Sequence[Init],
    resume: bool,
    progress: host.Progress,
    early_stop: int,
) -> tuple[LoraFile, Ending]:
    """Run the engine on a LoRA of its own: the policy stays as it was, the result depends on the node's inputs."""
    from ..trainer.engine.setup import assemble
    from ..trainer.rewards.base import move
    from ..trainer.training.early_stop import EarlyStop
    from ..trainer.training.prepare import as_chosen
    from ..trainer.training.run import start_run
    from ..trainer.training.run_folder import LORA as LORA_FILE

    looked_at = evaluation.conditioning if evaluation else None
    # afterwards what comes next is most often a picture by another FLUX, ComfyUI's
    with policy.at_work(config, stay=False):
        flux, lora = policies.fresh_lora(ready(policy.flux, vae, host.stop_if_cancelled), policy.wanted)
        try:
            with service.live(Path(config.run.folder)) as (control, announcer):
                ending, _ = start_run(
                    config,
                    resume=resume,
                    listeners=[progress, EarlyStop(config.weights, early_stop, control.stop), announcer],
                    control=control,
                    load=lambda config: as_chosen(
                        assemble(config, flux, lora, prompts.conditioning, rewards, inits, looked_at),
                        policy.choice(config),
                    ),
                )
            return read_lora_file(Path(config.run.folder) / LORA_FILE), ending
        finally:
            move(rewards.values(), "cpu")
            policies.drop_lora(flux)
