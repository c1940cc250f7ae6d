"""From settings to a loaded Setup, with the memory plan that fits the device."""

from dataclasses import replace

from ..device import free_memory
from ..engine.keeping import Keeping
from ..engine.micro_batch import MicroBatch
from ..engine.setup import (
    add_lora,
    assemble,
    build_rewards,
    compiles,
    encode_all,
    pick_dtype,
    placement_of,
    read_inits,
    source_of,
)
from ..engine.state import Setup
from ..models.families import family_of
from ..models.lora.attach import ADAPTER
from ..models.storage.placement import Placement
from ..planning.choice import Choice, as_named, choose
from ..settings.config import Config


def prepare(config: Config) -> Setup:
    """Load everything a run needs. The text encoders are let go before the model comes.

    Raises:
        ConfigError, ModelError, RewardError: what is wrong with a setting or a file, in one line.
    """
    watched = config.evaluation.prompts
    conditioning, *others = encode_all(config, [config.prompts, watched] if watched else [config.prompts])
    source = source_of(config)
    family = family_of(source, config.model.family)
    placement, choice = placement_of(config), as_named(config)
    if family.planned:
        placement, choice = planned(config, placement)
    policy = family.load(source, placement, guidance=config.model.guidance)
    policy.adapter = ADAPTER
    lora = add_lora(policy, config.lora, config.run.seed)
    inits = read_inits(config, policy)
    evaluation = others[0] if others else None
    return as_chosen(assemble(config, policy, lora, conditioning, build_rewards(config), inits, evaluation), choice)


def as_chosen(setup: Setup, choice: Choice) -> Setup:
    """The Setup that has as many candidates in the model at once, and keeps what, as was chosen."""
    update, rollout = (MicroBatch(size, setup.policy.device) for size in (choice.micro_batch, choice.rollout_batch))
    return replace(setup, micro_batch=update, rollout_batch=rollout, keeping=Keeping(choice.keeps))


def planned(config: Config, placement: Placement) -> tuple[Placement, Choice]:
    """The choice that fits the device, and the placement with its memory plan."""
    named = replace(config, model=replace(config.model, dtype=pick_dtype(config)))
    choice = choose(named, free_memory(placement.device))
    plan = choice.plan
    compiled = compiles(config.model, placement.device, plan.offload)
    return replace(placement, memory=plan.precision, offload=plan.offload, compiled=compiled), choice
