"""The loaded policies. One base model at a time stays loaded; its policies share it, each with a LoRA of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..trainer.device import training_on
from ..trainer.settings.config import Config, LoraSettings, ModelSettings, RewardSettings, RunSettings
from . import host
from .residence import Residence

if TYPE_CHECKING:
    import torch
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
    residence: Residence  # of the base model
    state: State | None = None  # optimiser and average, from the first step on
    version: int = 0
    recording: Recording | None = None  # where its steps are kept

    @contextmanager
    def at_work(self, config: Config, *, stay: bool = True) -> Iterator[None]:
        """Inside it may be trained, and its device is the policy's, see `Residence.in_use`.

        Raises:
            UserError: the device is full, while it comes or later; with what to lower in `config`.
        """
        with host.training_mode(), host.memory_advice(config), self.residence.in_use(stay=stay):
            yield

    def moved(self) -> None:
        """A step was made."""
        self.version += 1
        _moved[self.wanted] = self


# A graph holds its policies, and they go when ComfyUI forgets its results; one that has moved is work that nobody can
# load again, and stays until another base model is wanted.
_policies: WeakValueDictionary[Wanted, Policy] = WeakValueDictionary()
_moved: dict[Wanted, Policy] = {}
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
    policy = _policies.get(wanted)
    if policy is None:
        sibling = next((p for p in _policies.values() if p.wanted.model == wanted.model), None)
        if sibling is None:
            base, residence = load_base(wanted)
        else:
            base, residence = sibling.flux, sibling.residence
            drop_forgotten(base)
        flux, lora = fresh_lora(base, wanted)
        policy = _policies[wanted] = Policy(wanted, flux, lora, residence)
        residence.wait()
    return policy


def load_base(wanted: Wanted) -> tuple[FluxPolicy, Residence]:
    _policies.clear()
    _moved.clear()
    device = wanted.model.device
    host.free_models(device)
    with training_on(device), host.memory_advice(alone(wanted)):
        base = load(wanted)
    network = base.network

    def follow(there: torch.device) -> None:
        from ..trainer.engine.state import follow as follow_lora

        for policy in _policies.values():
            if policy.flux.network is network and policy.state:
                follow_lora(policy.state, there)

    return base, Residence(network, device, follow)


def load(wanted: Wanted) -> FluxPolicy:
    from ..trainer.engine.setup import compiles
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
        compiled=compiles(model, model.device, plan.offload),
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
    free = free_memory(device)
    return choose(alone(wanted), None if free is None else free - host.left_free(device)).plan


def alone(wanted: Wanted) -> Config:
    """A training of which nothing else is known yet: its rewards come later too, and take no room here."""
    model, run = replace(wanted.model, keep_inputs=False), RunSettings(rollout_batch=RunSettings.micro_batch)
    return Config(model, ("",), (RewardSettings("values"),), wanted.lora, run=run)


def fresh_lora(base: FluxPolicy, wanted: Wanted) -> tuple[FluxPolicy, Mapping[str, nn.Parameter]]:
    """The base model with a new LoRA on it, beside those that are there."""
    from ..trainer.engine.setup import add_lora

    flux = replace(base, adapter=f"lora_{next(_names)}")
    with host.training_mode():
        return flux, add_lora(flux, wanted.lora, wanted.seed)


def drop_forgotten(base: FluxPolicy) -> None:
    """Take the LoRAs off the base model whose policies are gone."""
    from ..trainer.models.lora.attach import adapters, detach_lora

    alive = {policy.flux.adapter for policy in _policies.values()}
    for name in adapters(base.network):
        if name not in alive:
            detach_lora(base.network, name)


def drop_lora(flux: FluxPolicy) -> None:
    from ..trainer.models.lora.attach import detach_lora

    detach_lora(flux.network, flux.adapter)
