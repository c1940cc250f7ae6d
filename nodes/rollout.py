"""Neighborhood Rollout: stages 1 to 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..trainer.choices import AUTO
from ..trainer.device import training_on
from ..trainer.errors import Stopped
from ..trainer.settings.config import (
    Config,
    GrpoSettings,
    InitSettings,
    RewardSettings,
    RunSettings,
    SamplingSettings,
)
from ..trainer.stages.solvers import SOLVERS
from . import host, policies
from .inputs import setting_input, setting_inputs
from .latents import begun, ready
from .newer import searched_by
from .wires import CATEGORY, NEIGHBORHOOD, POLICY, PROMPTS, TRAJECTORIES, Neighborhood, Prompts, RolledOut

if TYPE_CHECKING:
    from torch import Tensor

POLICY_INPUT = POLICY.Input("policy", tooltip="The model that draws and learns, by Load FLUX Policy.")
PROMPTS_INPUT = PROMPTS.Input("prompts", tooltip="What is drawn: all of them in turn, shuffled.")
NEIGHBORHOOD_INPUT = NEIGHBORHOOD.Input(
    "neighborhood", tooltip="How many candidates are compared, their size, and how alike they begin."
)
VAE_INPUT = io.Vae.Input("vae", optional=True, tooltip="Decodes the pictures. Needed if the model is a single file.")
SOLVER_INPUTS = [
    *setting_inputs(SamplingSettings, "solver", "steps"),
    setting_input(RunSettings, "micro_batch"),
]
INIT_INPUTS = [
    io.Latent.Input(
        "latent",
        optional=True,
        tooltip="What candidates begin from: a picture of their size, by VAE Encode or Encode Image. One for all "
        "prompts, or one for each.",
    ),
    setting_input(InitSettings, "denoise", optional=True),
    io.Mask.Input(
        "mask",
        optional=True,
        tooltip="Inpainting: white is drawn anew and trained, the rest stays the latent's. Without it, the "
        "latent's own mask counts (Set Latent Noise Mask).",
    ),
]


class Rollout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPORollout",
            display_name="Neighborhood Rollout",
            category=CATEGORY,
            **searched_by("candidates"),
            description="Draws the candidates of the next prompts. Runs again as soon as a Step has moved the policy.",
            inputs=[
                POLICY_INPUT,
                PROMPTS_INPUT,
                NEIGHBORHOOD_INPUT,
                *SOLVER_INPUTS,
                setting_input(GrpoSettings, "prompts_per_iteration", "prompts_per_step"),
                VAE_INPUT,
                *INIT_INPUTS,
            ],
            outputs=[
                TRAJECTORIES.Output(
                    "trajectories",
                    display_name="trajectories",
                    tooltip="The candidates' states and velocities, for scoring and for Step.",
                ),
                io.Image.Output(
                    "images", display_name="images", tooltip="P x G candidates, one prompt's after the other's."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        policy: policies.Policy,
        prompts: Prompts,
        neighborhood: Neighborhood,
        solver: str,
        steps: int,
        micro_batch: int,
        prompts_per_step: int,
        vae: object | None = None,
        latent: dict[str, Any] | None = None,
        denoise: float = InitSettings.denoise,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..trainer.engine.drawing import Clock
        from ..trainer.engine.grpo import sample_candidates
        from ..trainer.engine.setup import assemble

        init, inits = begun(latent, denoise, mask, neighborhood, len(prompts.texts))
        config = Config(
            model=policy.wanted.model,
            lora=policy.wanted.lora,
            prompts=prompts.texts,
            rewards=(RewardSettings("values"),),  # they come later in the graph
            sampling=sampling(neighborhood, steps, solver),
            grpo=GrpoSettings(
                prompts_per_iteration=prompts_per_step,
                group_size=neighborhood.group_size,
                strength=neighborhood.strength,
                anchors=1,
                trained_steps=steps,
            ),
            run=RunSettings(seed=neighborhood.seed, micro_batch=micro_batch),
            init=init,
        )
        calls = SOLVERS[solver].evaluations(steps) * -(-prompts_per_step * neighborhood.group_size // micro_batch)
        flux, device = ready(policy.flux, vae, counting(calls)), config.model.device
        with training_on(device), policy.at_work(config):
            setup = assemble(config, flux, policy.lora, prompts.conditioning, {}, inits).sized(policy.version)
            try:
                candidates = sample_candidates(setup, policy.version, range(steps), Clock(flux.device))
            except Stopped:
                host.raise_if_cancelled()
                raise
            candidates = candidates.to("cpu")  # where they wait for their scores
        images = candidates.images.movedim(1, -1)
        return io.NodeOutput(RolledOut(policy, policy.version, setup, candidates), images)


def sampling(neighborhood: Neighborhood, steps: int, solver: str) -> SamplingSettings:
    return SamplingSettings(neighborhood.width, neighborhood.height, steps, solver, AUTO, neighborhood.sizes)


def counting(calls: int) -> Callable[[], None]:
    """For `before_call`: moves the node's progress bar, and stops if the user has cancelled."""
    bar = ProgressBar(calls)

    def call() -> None:
        host.stop_if_cancelled()
        bar.update(1)

    return call
