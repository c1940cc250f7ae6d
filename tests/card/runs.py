"""Whole runs of the small random FLUX through the engine's front door, on any device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainer.engine.state import Setup
from trainer.events import Event, IterationDone
from trainer.settings.config_file import load_config
from trainer.training.run import LORA, start_run


class Redness:
    """A user's reward that answers on the CPU."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.cpu()[:, 0].mean((1, 2))


@dataclass
class Run:
    """What a run left behind."""

    reason: str
    setup: Setup
    events: list[Event] = field(repr=False)
    folder: Path

    @property
    def lora(self) -> dict[str, Tensor]:
        """The file that it wrote."""
        return load_file(self.folder / LORA)

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu() for name, p in self.setup.lora.items()}

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def metrics(self) -> list[dict[str, float]]:
        return [event.metrics for event in self.of(IterationDone)]


def run(config: Path, folder: Path, overrides: Sequence[str] = (), **options) -> Run:
    """`start_run` in `folder`, of a config whose settings are overridden as on the command line."""
    events: list[Event] = []
    listeners = [events.append, *options.pop("listeners", ())]
    settings = load_config(config, [f"run.folder={str(folder)!r}", *overrides])
    ending, setup = start_run(settings, listeners=listeners, **options)
    return Run(str(ending), setup, events, folder)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest difference between two LoRAs, in units of the learning rate's step of the config."""
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)
