"""The loaded policies. One base model at a time stays loaded; its policies share it, each with a LoRA of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..trainer.device import training_on
from ..trainer.settings.config import Config, LoraSettings, ModelSettings, RewardSettings
from . import host

if TYPE_CHECKING:
    from torch import nn

    from ..trainer.engine.state import State
    from ..trainer.models.flux1.policy import FluxPolicy
    from ..trainer.models.storage.memory import MemoryPlan
    from .recording import Recording


@dataclass(frozen=True)
class Wanted:
    """What the Load node was asked for: the same wish gets the same policy."""

    model: ModelSettings
    lora: LoraSettings
    seed: int


@dataclass(eq=False)
class Policy:
    """A FLUX with a LoRA that is trained step by step. `version` counts the optimiser's steps."""

    wanted: Wanted
    flux: FluxPolicy
    lora: Mapping[str, nn.Parameter]
    state: State | None = None  # optimiser and average, from the first step on
    version: int = 0
    recording: Recording | None = None  # where its steps are kept


_policies: dict[Wanted, Policy] = {}
_names = itertools.count()


def version(wanted: Wanted) -> int:
    """How many steps the policy has taken; 0 if it is not loaded."""
    policy = _policies.get(wanted)
    return policy.version if policy else 0


def get(wanted: Wanted) -> Policy:
    """The policy of a wish, loaded at most once. Another base model takes the place of the one before.

    Raises:
        ModelError, LoraError: the file or folder cannot be used, in one sentence.
    """
    if wanted not in _policies:
        base = next((p.flux for p in _policies.values() if p.wanted.model == wanted.model), None)
        if base is None:
            _policies.clear()
            host.free_models(wanted.model.device)
            with training_on(wanted.model.device):
                base = load(wanted)
        flux, lora = fresh_lora(base, wanted)
        _policies[wanted] = Policy(wanted, flux, lora)
    return _policies[wanted]


def load(wanted: Wanted) -> FluxPolicy:
    from ..trainer.models.files.source import resolve
    from ..trainer.models.flux1.family import load_flux, load_placed, shifts
    from ..trainer.models.flux1.policy import FluxPolicy
    from ..trainer.models.storage.placement import DTYPES, Placement

    model = wanted.model
    with host.training_mode():
        plan = plan_of(wanted)
    placement = Placement(
        device=model.device,
        dtype=DTYPES[model.dtype],
        memory=plan.precision,
        offload=plan.offload,
        checkpointing=model.checkpointing,
        compiled=model.compile and not plan.offload,
    )
    with host.training_mode():
        source = resolve(model.path)
        if source.file:
            transformer = load_placed(source, placement)
            return FluxPolicy(transformer, None, model.guidance, shifts(source, transformer))
        return load_flux(source, placement, guidance=model.guidance)


def plan_of(wanted: Wanted) -> MemoryPlan:
    """The memory plan of a wish. "auto" fits a training in the nodes' default sizes, which come later in the graph."""
    from ..trainer.device import free_memory
    from ..trainer.planning.choice import choose

    device = wanted.model.device
    # the rewards come later too: here they take no room
    config = Config(wanted.model, ("",), (RewardSettings("values"),), wanted.lora)
    free = free_memory(device)
    return choose(config, None if free is None else free - host.left_free(device)).plan


def fresh_lora(base: FluxPolicy, wanted: Wanted) -> tuple[FluxPolicy, Mapping[str, nn.Parameter]]:
    """The base model with a new LoRA on it, beside those that are there."""
    from dataclasses import replace

    from ..trainer.engine.setup import add_lora

    flux = replace(base, adapter=f"lora_{next(_names)}")
    with host.training_mode():
        return flux, add_lora(flux, wanted.lora, wanted.seed)


def drop_lora(flux: FluxPolicy) -> None:
    from ..trainer.models.lora.attach import detach_lora

    detach_lora(flux.network, flux.adapter)
