"""Noise Neighborhood and Neighborhood Rollout: stages 1 to 3, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..trainer.config import (
    AUTO,
    Config,
    GrpoSettings,
    RewardSettings,
    RunSettings,
    SamplingSettings,
)
from ..trainer.errors import Stopped, UserError
from ..trainer.solvers import EVALUATIONS, SOLVERS
from . import host, policies
from .wires import CATEGORY, NEIGHBORHOOD, POLICY, PROMPTS, TRAJECTORIES, Neighborhood, Prompts, RolledOut

if TYPE_CHECKING:
    from ..trainer.models.flux import Decoder, FluxPolicy


PIXELS = "Of the candidates, pixels, a multiple of 16; 64 suits the embedded model. Larger takes more time and memory."


class NoiseNeighborhood(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPONoiseNeighborhood",
            display_name="Noise Neighborhood",
            category=CATEGORY,
            description="One base noise for each prompt, and G neighbours of it: the candidates that are compared.",
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=False,
                    tooltip="Every random choice of the training follows from it: a run can be repeated exactly.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.3,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How far the neighbours are from the base noise: 0 the same picture, 1 unrelated ones. "
                    "0.3 is best in the paper; raise it if all candidates look alike.",
                ),
                io.Int.Input(
                    "group_size",
                    default=12,
                    min=2,
                    max=128,
                    tooltip="G, candidates of each prompt. More compare better and take longer to draw.",
                ),
                io.Int.Input("width", default=512, min=16, max=4096, step=16, tooltip=PIXELS),
                io.Int.Input("height", default=512, min=16, max=4096, step=16, tooltip=PIXELS),
            ],
            outputs=[
                NEIGHBORHOOD.Output("neighborhood", display_name="neighborhood", tooltip="For Rollout and Train.")
            ],
        )

    @classmethod
    def validate_inputs(cls, group_size: int) -> bool | str:
        return (
            group_size >= 2 or f"group_size must be at least 2, got {group_size}: rewards are compared within a group"
        )

    @classmethod
    def execute(cls, seed: int, strength: float, group_size: int, width: int, height: int) -> io.NodeOutput:
        return io.NodeOutput(Neighborhood(seed, strength, group_size, width, height))


POLICY_INPUT = POLICY.Input("policy", tooltip="The model that draws and learns, by Load FLUX Policy.")
PROMPTS_INPUT = PROMPTS.Input("prompts", tooltip="What is drawn: all of them in turn, shuffled.")
NEIGHBORHOOD_INPUT = NEIGHBORHOOD.Input(
    "neighborhood", tooltip="How many candidates are compared, their size, and how alike they begin."
)
VAE_INPUT = io.Vae.Input("vae", optional=True, tooltip="Decodes the pictures. Needed where the model is a single file.")
SOLVER_INPUTS = [
    io.Combo.Input(
        "solver",
        options=list(SOLVERS),
        default="dpm++2m",
        tooltip="Of the deterministic trajectories. dpm++2m is the paper's; heun takes two model calls a step.",
    ),
    io.Int.Input(
        "steps",
        default=8,
        min=1,
        max=100,
        tooltip="T, solver steps of a trajectory. More draw cleaner pictures and take longer.",
    ),
    io.Int.Input(
        "micro_batch",
        default=4,
        min=1,
        max=128,
        tooltip="Candidates in the model at once. Memory depends on it and on the picture's size: "
        "lower it when memory runs out.",
    ),
]


class Rollout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPORollout",
            display_name="Neighborhood Rollout",
            category=CATEGORY,
            description="Draws the candidates of the next prompts. Runs again as soon as a Step has moved the policy.",
            inputs=[
                POLICY_INPUT,
                PROMPTS_INPUT,
                NEIGHBORHOOD_INPUT,
                *SOLVER_INPUTS,
                io.Int.Input(
                    "prompts_per_step",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="P, prompts in one rollout. Each has a neighborhood of its "
                    "own; their gradients are averaged.",
                ),
                VAE_INPUT,
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
    ) -> io.NodeOutput:
        from ..trainer.iteration import Clock, sample_candidates
        from ..trainer.setup import assemble

        config = Config(
            model=policy.wanted.model,
            lora=policy.wanted.lora,
            prompts=prompts.texts,
            rewards=(RewardSettings("values"),),  # they come later in the graph
            sampling=SamplingSettings(neighborhood.width, neighborhood.height, steps, solver, AUTO),
            grpo=GrpoSettings(
                prompts_per_iteration=prompts_per_step,
                group_size=neighborhood.group_size,
                strength=neighborhood.strength,
                anchors=1,
                trained_steps=steps,
            ),
            run=RunSettings(seed=neighborhood.seed, micro_batch=micro_batch),
        )
        calls = steps * EVALUATIONS[solver] * -(-prompts_per_step * neighborhood.group_size // micro_batch)
        flux = ready(policy.flux, vae, counting(calls))
        with host.training_mode(), host.memory_advice(micro_batch, neighborhood.width, neighborhood.height):
            setup = assemble(config, flux, policy.lora, prompts.conditioning, {})
            try:
                candidates = sample_candidates(setup, policy.version, range(steps), Clock(flux.device))
            except Stopped:
                host.raise_if_cancelled()
                raise
        images = candidates.images.movedim(1, -1).cpu()
        return io.NodeOutput(RolledOut(policy, policy.version, setup, candidates), images)


def counting(calls: int) -> Callable[[], None]:
    """For `before_call`: moves the node's progress bar, and stops where the user has cancelled."""
    bar = ProgressBar(calls)

    def call() -> None:
        host.stop_if_cancelled()
        bar.update(1)

    return call


def ready(flux: FluxPolicy, vae: object | None, before_call: Callable[[], None]) -> FluxPolicy:
    """The policy with something to decode by."""
    decoder = comfy_decoder(vae) if vae is not None else flux.decoder
    if decoder is None:
        raise UserError("the model is a single file without a VAE: connect Load VAE (ae.safetensors) to 'vae'")
    return replace(flux, decoder=decoder, before_call=before_call)


def comfy_decoder(vae: object) -> Decoder:
    """ComfyUI's VAE, which expects latents as its own FLUX models leave them."""
    from comfy.latent_formats import Flux

    latents = Flux()

    def decode(z):
        images = vae.decode(latents.process_out(z))  # [N, H, W, 3] in [0, 1]
        return images.movedim(-1, 1).to(z.device).float().clamp(0, 1)

    return decode
