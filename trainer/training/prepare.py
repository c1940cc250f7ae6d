"""From settings to a loaded Setup, with the memory plan that fits the device."""

from dataclasses import replace

from ..device import free_memory
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
from ..planning.choice import choose
from ..settings.config import Config, RunSettings


def prepare(config: Config) -> Setup:
    """Load everything a run needs. The text encoders are let go before the model comes.

    Raises:
        ConfigError, ModelError, RewardError: what is wrong with a setting or a file, in one line.
    """
    watched = config.evaluation.prompts
    conditioning, *others = encode_all(config, [config.prompts, watched] if watched else [config.prompts])
    source = source_of(config)
    family = family_of(source, config.model.family)
    placement, run, keeps = placement_of(config), config.run, config.model.keep_inputs is True
    if family.planned:
        placement, run, keeps = planned(config, placement)
    policy = family.load(source, placement, guidance=config.model.guidance)
    policy.adapter = ADAPTER
    lora = add_lora(policy, config.lora, config.run.seed)
    inits = read_inits(config, policy)
    evaluation = others[0] if others else None
    setup = assemble(config, policy, lora, conditioning, build_rewards(config), inits, evaluation)
    batches = MicroBatch(run.micro_batch, policy.device), MicroBatch(run.drawn_at_once, policy.device)
    return replace(setup, micro_batch=batches[0], rollout_batch=batches[1], keeps=keeps)


def planned(config: Config, placement: Placement) -> tuple[Placement, RunSettings, bool]:
    """The placement with the memory plan that fits the device, how many candidates are in the model at once, and
    whether the blocks' inputs are kept."""
    named = replace(config, model=replace(config.model, dtype=pick_dtype(config)))
    choice = choose(named, free_memory(placement.device))
    plan = choice.plan
    compiled = compiles(config.model, placement.device, plan.offload)
    placement = replace(placement, memory=plan.precision, offload=plan.offload, compiled=compiled)
    run = replace(config.run, micro_batch=choice.micro_batch, rollout_batch=choice.rollout_batch)
    return placement, run, choice.keeps
