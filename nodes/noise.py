"""Noise Neighborhood: stage 1, before any prompt. Candidate Noise: one of its noises for ComfyUI's own samplers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..trainer.errors import UserError, brief
from ..trainer.settings.config import GrpoSettings, RunSettings, SamplingSettings
from ..trainer.settings.run import SEEDS
from . import host
from .inputs import setting_input, setting_inputs
from .newer import rare
from .wires import CATEGORY, NEIGHBORHOOD, Neighborhood

if TYPE_CHECKING:
    from torch import Tensor

STRENGTH = setting_input(GrpoSettings, "strength")
GROUP_SIZE = setting_input(GrpoSettings, "group_size")
BASE = -1  # the base noise, in the place of a candidate's number
CHANNELS = 16  # of a FLUX latent


class NoiseNeighborhood(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPONoiseNeighborhood",
            display_name="Noise Neighborhood",
            category=CATEGORY,
            description="One base noise for each prompt, and G neighbours of it: the candidates that are compared.",
            inputs=[
                setting_input(RunSettings, "seed", control_after_generate=False),
                STRENGTH,
                GROUP_SIZE,
                *setting_inputs(SamplingSettings, "width", "height"),
                *rare(
                    io.String.Input(
                        "more_sizes",
                        optional=True,
                        default="",
                        tooltip="Other sizes that iterations take in turn, such as 768x512, 512x768. Empty: one size.",
                    )
                ),
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
    def execute(
        cls, seed: int, strength: float, group_size: int, width: int, height: int, more_sizes: str = ""
    ) -> io.NodeOutput:
        return io.NodeOutput(Neighborhood(seed, strength, group_size, width, height, read_sizes(more_sizes)))


def read_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """(width, height) of "768x512, 512x768"."""
    sizes = []
    for part in filter(None, re.split(r"[,;\s]+", text)):
        size = re.fullmatch(r"(\d+)[x×](\d+)", part)
        if not size:
            raise UserError(f"more_sizes has {brief(part)}: write width x height, as in 768x512, 512x768")
        sizes.append((int(size[1]), int(size[2])))
    return tuple(sizes)


class CandidateNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOCandidateNoise",
            display_name="Candidate Noise",
            category=CATEGORY,
            description="The noise of one candidate of a training, for Sampler Custom Advanced: draws its picture "
            "again, with any LoRA.",
            inputs=[
                io.String.Input(
                    "seed",
                    default="0",
                    tooltip="Of the candidate's neighborhood, as the run has it. Text, as it has more digits than a "
                    "number field keeps.",
                ),
                STRENGTH,
                GROUP_SIZE,
                io.Int.Input(
                    "candidate",
                    default=0,
                    min=BASE,
                    max=127,
                    tooltip="Number of the candidate, from 0 to group_size - 1; -1 is the base noise.",
                ),
            ],
            outputs=[io.Noise.Output("noise", display_name="noise", tooltip="For Sampler Custom Advanced.")],
        )

    @classmethod
    def validate_inputs(cls, seed: str, group_size: int, candidate: int) -> bool | str:
        digits = seed.strip()
        if not (digits.isascii() and digits.isdigit() and len(digits) < 25 and int(digits) <= SEEDS):
            return f"seed {brief(seed)} must be a whole number from 0 to {SEEDS}"
        return candidate < group_size or f"candidate {candidate} must be below group_size = {group_size}"

    @classmethod
    def execute(cls, seed: str, strength: float, group_size: int, candidate: int) -> io.NodeOutput:
        return io.NodeOutput(OneOf(int(seed), strength, group_size, candidate))


@dataclass(frozen=True)
class OneOf:
    """ComfyUI's NOISE: one noise of a neighborhood, of the size of the latent that it is for."""

    seed: int
    strength: float
    group_size: int
    candidate: int

    def generate_noise(self, latent: dict[str, Tensor]) -> Tensor:
        """[N, 16, height / 8, width / 8], the same for each of the N latents."""
        from ..trainer.stages.noise import base_noise, neighborhood

        shape = tuple(latent["samples"].shape)
        if len(shape) != 4 or shape[1] != CHANNELS:
            raise UserError(f"Candidate Noise needs a FLUX latent [N, {CHANNELS}, height, width], got {list(shape)}")
        with host.training_mode():
            if self.candidate == BASE:
                noise = base_noise(shape[1:], self.seed)
            else:
                noise = neighborhood(self.seed, shape[1:], self.strength, self.group_size)[self.candidate]
            return noise.expand(shape).clone()
