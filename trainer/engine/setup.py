"""A Setup of loaded parts, and the parts themselves: prompts, LoRA, rewards, pictures to begin from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .. import tiny
from ..choices import AUTO, START
from ..device import multiplies_eight_bits, pick_device, usual_dtype
from ..errors import ConfigError
from ..models.conditioning import Conditioning
from ..models.families import family_of
from ..models.family import Geometry, Policy
from ..models.files.source import ModelSource, resolve
from ..models.lora.attach import attach_lora, detach_lora
from ..models.lora.start import modules_in, start_from
from ..models.lora.targets import LoraError, linear_layers
from ..models.storage.compiling import wants_compiled
from ..models.storage.placement import DTYPES, Placement
from ..objectives.objective import objective_of
from ..picture_files import read_pictures
from ..pictures.convert import fitted
from ..plugins import is_own
from ..rewards import build
from ..rewards.base import Reward, move
from ..settings.config import Config, LoraSettings, ModelSettings, require
from ..stages.inpainting import Init
from ..stages.noise import derive_seed
from ..stages.schedule import sigma_grid
from .keeping import Keeping
from .micro_batch import MicroBatch
from .state import Canvas, Setup

LORA_SEED = 4  # stream of random numbers, beside those of grpo.py


def read_inits(config: Config, policy: Policy) -> list[Init]:
    """What the configured pictures and mask are at every size; none if there are no pictures.

    Raises:
        ConfigError: the run began from a latent, of which nothing but its digest is left.
        PictureError: a file cannot be used.
    """
    init = config.init
    if not init.image:
        if init.digest:
            raise ConfigError("init.image = []: the run's pictures came by a graph's latent; name their files")
        return []
    pictures, grey = read_pictures(init.image, init.mask)
    inits = []
    for size in config.sampling.all_sizes:
        images = torch.stack([fitted(picture, size) for picture in pictures])
        mask = fitted(grey, size)[0] if grey else None
        inits.append(policy.begin_from(images, mask, policy.geometry(*size), reference=init.reference))
    return inits


def add_lora(policy: Policy, settings: LoraSettings, seed: int) -> dict[str, nn.Parameter]:
    """Put a LoRA named `policy.adapter` on the policy's network, new or from the file that the settings name.

    Raises:
        LoraError: no layer is targeted, or the file is no LoRA, or one that does not fit the settings.
    """
    lora = attach_lora(
        policy.network,
        rank=settings.rank,
        alpha=settings.alpha,
        targets=settings.targets,
        presets={**policy.lora_targets, **layers_of_start(policy, settings)},
        seed=derive_seed(LORA_SEED, seed),
        adapter=policy.adapter,
        variant=settings.variant,
        device=policy.device,
        dtype=policy.dtype,
    )
    if settings.start:
        try:
            start_from(Path(settings.start), policy.network, policy.adapter, lora, policy.layer_names)
        except LoraError:
            detach_lora(policy.network, policy.adapter)
            raise
    return lora


def layers_of_start(policy: Policy, settings: LoraSettings) -> dict[str, str]:
    """A preset for `lora.targets = "start"`: exactly the layers that the LoRA's file names."""
    if settings.targets != START or not settings.start:
        return {}
    modules = [name for name, _ in linear_layers(policy.network)]
    return {START: "|".join(map(re.escape, modules_in(Path(settings.start), modules, policy.layer_names)))}


def assemble(
    config: Config,
    policy: Policy,
    lora: Mapping[str, nn.Parameter],
    conditioning: Conditioning,
    rewards: Mapping[str, Reward],
    inits: Sequence[Init] = (),
    evaluation: Conditioning | None = None,
) -> Setup:
    """A Setup of loaded parts: adds the grids that the settings and the pictures' sizes ask for.

    With `inits`, one for each size, trajectories begin from them at the sigma that `init.denoise` asks for, see
    `sigma_grid`.

    Raises:
        ConfigError: the model cannot draw from these inits, see `Policy.check`; an evaluation prompt has no picture,
            and each of the prompts has one of its own.
    """
    policy.check(inits)
    if inits and len(inits[0].latents) > 1:
        strange = [text for text in config.evaluation.prompts if text not in config.prompts]
        require(not strange, "evaluation.prompts", strange, "must be among the prompts, which have a picture each")
    if config.run.offload_rewards:  # they were built on the device
        move(rewards.values(), "cpu")
    canvases = []
    for i, size in enumerate(config.sampling.all_sizes):
        geometry = policy.geometry(*size)
        sigmas = sigma_grid(config.sampling.steps, time_shift(config, policy, geometry), config.init.denoise)
        canvases.append(Canvas(geometry, sigmas, inits[i] if inits else None))
    drawn = config.grpo.prompts_per_iteration * config.grpo.group_size
    return Setup(
        config,
        policy,
        lora,
        conditioning,
        rewards,
        tuple(canvases),
        canvases[0],
        objective_of(config),
        micro_batch=MicroBatch(config.run.micro_batch, policy.device),
        rollout_batch=MicroBatch(config.run.drawn_at_once, policy.device),
        scored_at_once=MicroBatch(drawn, policy.device),
        keeping=Keeping(config.model.keep_inputs is True),
        evaluation=evaluation,
    )


def drawn_in(setup: Setup, steps: int) -> Setup:
    """The same parts, for pictures beside the training by a solver of so many steps."""
    config = setup.config
    grpo = replace(config.grpo, trained_steps=0, hold=0.0)  # which may not fit so many
    config = replace(config, sampling=replace(config.sampling, steps=steps), grpo=grpo)
    inits = [canvas.init for canvas in setup.canvases if canvas.init]
    return assemble(config, setup.policy, setup.lora, setup.conditioning, setup.rewards, inits, setup.evaluation)


def build_rewards(config: Config) -> dict[str, Reward]:
    device, rewards = pick_device(config.model.device), {}
    for settings in config.rewards:
        reward = rewards[settings.label] = build(settings.kind, settings.options, device)
        if config.run.offload_rewards:  # the device need not hold them all
            move([reward], "cpu")
    return rewards


def encode(config: Config, prompts: tuple[str, ...] | list[str]) -> Conditioning:
    """Embeddings of `prompts` by the configured model's text encoders."""
    return encode_all(config, [prompts])[0]


def encode_all(config: Config, sets: Sequence[Sequence[str]]) -> list[Conditioning]:
    """The same of several sets of prompts, with the encoders loaded once."""
    source = source_of(config)
    family = family_of(source, config.model.family)
    return family.encode(source, sets, placement_of(config), tokens=config.model.text_tokens)


def placement_of(config: Config) -> Placement:
    """Where the config's models compute, and how its settings say that weights are kept."""
    model, device, dtype = config.model, pick_device(config.model.device), pick_dtype(config)
    in_8_bits = model.matmul == "fp8"
    if in_8_bits:
        remedy = "this device does not multiply in 8 bits, as NVIDIA's do from the RTX 40 on: use 'auto'"
        require(multiplies_eight_bits(device), "model.matmul", model.matmul, remedy)
        require(dtype == "bfloat16", "model.matmul", model.matmul, f"needs model.dtype = 'bfloat16', it is {dtype}")
    return Placement(
        device=device,
        dtype=DTYPES[dtype],
        memory=model.memory,
        offload=model.offload,
        checkpointing=model.checkpointing,
        in_8_bits=in_8_bits,
        compiled=compiles(model, device, model.offload),
    )


def compiles(model: ModelSettings, device: str, offload: float) -> bool:
    """Whether the blocks are compiled, under a memory plan of this offload."""
    return wants_compiled(model.compile, device, offload=offload, small=model.path in tiny.MODELS)


def source_of(config: Config) -> ModelSource:
    model = config.model
    if is_own(model.family):  # whose path means what it likes
        return ModelSource(model.path, model.path, hub=False, vae=model.vae, text_encoders=model.text_encoders)
    return resolve(model.path, model.vae, model.text_encoders)


def pick_dtype(config: Config) -> str:
    if config.model.dtype != AUTO:
        return config.model.dtype
    return usual_dtype(pick_device(config.model.device))


def time_shift(config: Config, policy: Policy, geometry: Geometry) -> float:
    """The shift of the sigmas: the setting's, or the model's own if that is left to it."""
    shift = config.sampling.shift
    return policy.shift(geometry) if isinstance(shift, str) else shift
