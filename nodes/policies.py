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
    from ..trainer.planning.choice import Choice
    from ..trainer.planning.phases import Peak
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
    plan: MemoryPlan  # its own
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

    def choice(self, config: Config) -> Choice:
        """How many candidates of a training are in the model at once, by the room beside the base model's plan.

        Inside `at_work`: then the room is the training's.
        """
        from ..trainer.planning.choice import choose

        model = replace(config.model, memory=self.plan.precision, offload=self.plan.offload)
        free = host.room(config.model.device)
        room = None if free is None else free + self.residence.loaded_size()
        return choose(replace(config, model=model), room, predict_unless_cancelled)

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
            base, residence, plan = load_base(wanted)
        else:
            base, residence, plan = sibling.flux, sibling.residence, sibling.plan
            drop_forgotten(base)
        flux, lora = fresh_lora(base, wanted)
        policy = _policies[wanted] = Policy(wanted, flux, lora, residence, plan)
        residence.wait()
    return policy


def load_base(wanted: Wanted) -> tuple[FluxPolicy, Residence, MemoryPlan]:
    _policies.clear()
    _moved.clear()
    device = wanted.model.device
    host.free_models(device)
    with training_on(device), host.memory_advice(alone(wanted)), host.training_mode():
        plan = plan_of(wanted)
        base = load(wanted, plan)
    network = base.network

    def follow(there: torch.device) -> None:
        from ..trainer.engine.state import follow as follow_lora

        for policy in _policies.values():
            if policy.flux.network is network and policy.state:
                follow_lora(policy.state, there)

    return base, Residence(network, device, follow), plan


def load(wanted: Wanted, plan: MemoryPlan) -> FluxPolicy:
    from ..trainer.engine.setup import compiles
    from ..trainer.models.files.source import resolve
    from ..trainer.models.flux1.family import load_flux, load_placed, shifts
    from ..trainer.models.flux1.policy import FluxPolicy
    from ..trainer.models.storage.placement import DTYPES, Placement

    model = wanted.model
    placement = Placement(
        device=model.device,
        dtype=DTYPES[model.dtype],
        memory=plan.precision,
        offload=plan.offload,
        checkpointing=model.checkpointing,
        compiled=compiles(model, model.device, plan.offload),
    )
    source = resolve(model.path)
    if source.file:
        transformer = load_placed(source, placement)
        return FluxPolicy(transformer, None, model.guidance, shifts(source, transformer))
    return load_flux(source, placement, guidance=model.guidance)


def plan_of(wanted: Wanted) -> MemoryPlan:
    """The memory plan of a wish. "auto" fits a training in the nodes' default sizes, which come later in the graph."""
    from ..trainer.planning.choice import choose

    return choose(alone(wanted), host.room(wanted.model.device), predict_unless_cancelled).plan


def predict_unless_cancelled(config: Config, plan: MemoryPlan) -> Mapping[str, Peak]:
    """A count takes 20 seconds for FLUX.1-dev."""
    from ..trainer.planning.phases import predict

    host.raise_if_cancelled()
    return predict(config, plan)


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
