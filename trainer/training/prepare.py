"""From settings to a loaded Setup, with the memory plan that fits the device."""

import logging
from dataclasses import replace

from ..device import free_memory, pick_device
from ..engine.micro_batch import MicroBatch
from ..engine.setup import add_lora, assemble, build_rewards, encode_all, pick_dtype, read_inits, source_of
from ..engine.state import Setup
from ..models.flux1.policy import load_flux
from ..models.lora.attach import ADAPTER
from ..planning.choice import choose
from ..settings.config import Config

log = logging.getLogger(__name__)


def prepare(config: Config) -> Setup:
    """Load everything a run needs. The text encoders are let go before the transformer comes.

    Raises:
        ConfigError, ModelError, RewardError: what is wrong with a setting or a file, in one line.
    """
    device = pick_device(config.model.device)
    sets = [prompts for prompts in (config.prompts, config.evaluation.prompts) if prompts]
    conditioning, evaluation = (*encode_all(config, sets), None)[:2]
    dtype = pick_dtype(config)
    choice = choose(replace(config, model=replace(config.model, dtype=dtype)), free_memory(device))
    if config.model.compile and choice.plan.offload:
        log.warning("model.compile = true: left out, as offloaded weights break the compiled graph in every layer")
    policy = load_flux(
        source_of(config),
        device=device,
        dtype=dtype,
        guidance=config.model.guidance,
        memory=choice.plan.precision,
        offload=choice.plan.offload,
        checkpointing=config.model.checkpointing,
        compiled=config.model.compile and not choice.plan.offload,
    )
    policy.adapter = ADAPTER
    lora = add_lora(policy, config.lora, config.run.seed)
    inits = read_inits(config, policy)
    setup = assemble(config, policy, lora, conditioning, build_rewards(config), inits, evaluation)
    return replace(setup, micro_batch=MicroBatch(choice.micro_batch, policy.device))
