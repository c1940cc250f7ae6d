"""How pictures are drawn, and what they begin from."""

import math
from dataclasses import dataclass
from typing import Any

from ..choices import AUTO
from ..errors import ConfigError
from ..models.flux1.geometry import Geometry
from ..stages.solvers import SOLVERS
from .described import Section, require, setting

SIZE: dict[str, Any] = {
    "help": "Of the candidates, pixels, a multiple of 16; 64 suits the embedded model. Larger takes more time and "
    "memory.",
    "unit": "pixel",
    "lowest": 16,
    "highest": 4096,
    "step": 16,
}


@dataclass(frozen=True)
class SamplingSettings(Section, section="sampling"):
    width: int = setting(512, **SIZE)
    height: int = setting(512, **SIZE)
    steps: int = setting(
        8, "T, solver steps of a trajectory. More draw cleaner pictures and take longer.", least=1, highest=100
    )
    solver: str = setting(
        "dpm++2m",
        "Of the deterministic trajectories. dpm++2m is the paper's; ab2 is Adams-Bashforth's; heun takes two model "
        "calls a step.",
        choices=tuple(SOLVERS),
        own=True,
    )
    shift: float | str = setting(
        AUTO,
        "Time shift of the sigmas. auto: the model's own; FLUX.1-dev's follows the resolution, FLUX.1-schnell's is 1.",
        above=0,
        choices=(AUTO,),
    )
    sizes: tuple[tuple[int, ...], ...] = setting(
        (),
        "Several [width, height] in place of the two above: each iteration draws all of its prompts in one of them.",
        unit="pixel",
        lowest=16,
        highest=4096,
    )
    jitter: float = setting(
        0.0,
        "How far the sigmas move from iteration to iteration, as a share of the steps between them, so that no single "
        "grid is learnt. 0: not at all.",
        least=0,
        below=1,
        step=0.05,
        omit_default=True,
    )

    def check(self) -> None:
        for size in self.sizes:
            require(len(size) == 2, "sampling.sizes", list(size), "must be [width, height] in pixels")
        require(len(set(self.sizes)) == len(self.sizes), "sampling.sizes", self.sizes, "each size once")
        for width, height in self.all_sizes:
            try:
                Geometry(width, height)
            except ValueError as error:
                raise ConfigError(f"sampling.{error}") from None

    @property
    def all_sizes(self) -> tuple[tuple[int, ...], ...]:
        """(width, height) of every size, pixels; the evaluation draws in the first."""
        return self.sizes or ((self.width, self.height),)

    @property
    def largest(self) -> tuple[int, ...]:
        """The size with the most pixels: what memory depends on."""
        return max(self.all_sizes, key=math.prod)


@dataclass(frozen=True)
class InitSettings(Section, section="init"):
    """What pictures begin from beside noise: image-to-image, inpainting if there is a mask, or what is edited."""

    image: tuple[str, ...] = setting(
        (),
        "Files of pictures to begin from: one for all prompts, or one for each. They are cut to the run's size. PNG, "
        "JPEG, WebP, BMP, TIFF or GIF; transparent parts are white.",
    )
    denoise: float = setting(
        1.0,
        "Share of the way from noise to picture that is drawn, as in KSampler. 1 ignores the picture outside of "
        "inpainting; 0.6 keeps its composition, 0.3 most of it.",
        above=0,
        most=1,
        step=0.01,
    )
    mask: str = setting(
        "",
        "Inpainting: a file of the pictures' size, white where they are drawn anew and trained; if it has one colour, "
        "where it is opaque. Empty: everywhere.",
    )
    reference: bool = setting(False, "The model sees the pictures while it draws, to edit them. For FLUX.1-Kontext.")
    digest: str = setting(
        "", "Not to be set: it is read from the files, and a run goes on from the same pictures alone."
    )

    def check(self) -> None:
        there = bool(self.image or self.digest)
        require(self.denoise == 1 or there, "init.denoise", self.denoise, "below 1 it needs init.image to begin from")
        require(not self.mask or there, "init.mask", self.mask, "needs init.image, which is kept outside of it")
        require(not self.reference or there, "init.reference", self.reference, "needs init.image, which is seen")
