"""A Setup of loaded parts, and the parts themselves: prompts, LoRA, rewards, pictures to begin from."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ..choices import AUTO
from ..device import pick_device, usual_dtype
from ..errors import ConfigError
from ..models.files.picture_files import read_pictures
from ..models.files.source import ModelSource, resolve
from ..models.flux1 import lora_names
from ..models.flux1.encode_image import VaeEncoder, encode_init, fitted
from ..models.flux1.geometry import FILL_CHANNELS, Geometry
from ..models.flux1.policy import DTYPES, FluxPolicy
from ..models.flux1.text import Conditioning, encode_sets
from ..models.flux1.tokens import text_tokens
from ..models.lora.attach import attach_lora, detach_lora
from ..models.lora.start import start_from
from ..models.lora.targets import LoraError
from ..rewards import build
from ..rewards.base import Reward, move
from ..settings.config import Config, LoraSettings, require
from ..stages.inpainting import Init
from ..stages.noise import derive_seed
from ..stages.schedule import resolution_mu, sigma_grid
from .micro_batch import MicroBatch
from .state import Canvas, Setup

LORA_SEED = 4  # stream of random numbers, beside those of grpo.py


def read_inits(config: Config, policy: FluxPolicy) -> list[Init]:
    """What the configured pictures and mask are at every size; none where there are no pictures.

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
    encoder, fill = VaeEncoder(policy.decoder.vae), sees_mask(policy)
    inits = []
    for size in config.sampling.all_sizes:
        geometry = Geometry(*size)
        images = torch.stack([fitted(picture, geometry) for picture in pictures])
        mask = fitted(grey, geometry)[0] if grey else None
        inits.append(encode_init(images, mask, encoder, geometry, fill=fill, reference=config.init.reference))
    return inits


def sees_mask(policy: FluxPolicy) -> bool:
    """Whether the transformer is FLUX.1-Fill's."""
    return policy.transformer.config.in_channels == FILL_CHANNELS


def add_lora(policy: FluxPolicy, settings: LoraSettings, seed: int) -> dict[str, nn.Parameter]:
    """Put a LoRA named `policy.adapter` on the policy's transformer, new or from the file that the settings name.

    Raises:
        LoraError: no layer is targeted, or the file is no LoRA, or one that does not fit the settings.
    """
    lora = attach_lora(
        policy.transformer,
        rank=settings.rank,
        alpha=settings.alpha,
        targets=settings.targets,
        seed=derive_seed(LORA_SEED, seed),
        adapter=policy.adapter,
        variant=settings.variant,
        device=policy.device,
        dtype=policy.dtype,
    )
    if settings.start:
        try:
            start_from(Path(settings.start), policy.transformer, policy.adapter, lora, lora_names)
        except LoraError:
            detach_lora(policy.transformer, policy.adapter)
            raise
    return lora


def assemble(
    config: Config,
    policy: FluxPolicy,
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
        ConfigError: the transformer is FLUX.1-Fill's, and there is no picture with a mask; an evaluation prompt has no
            picture, where each of the prompts has one of its own.
    """
    if sees_mask(policy) and not (inits and all(init.fill is not None for init in inits)):
        raise ConfigError(
            "init.mask = '': FLUX.1-Fill draws into pictures; set init.image and init.mask, "
            "or connect Encode Image with a mask"
        )
    if inits and len(inits[0].latents) > 1:
        strange = [text for text in config.evaluation.prompts if text not in config.prompts]
        require(not strange, "evaluation.prompts", strange, "must be among the prompts, which have a picture each")
    if config.run.offload_rewards:  # they were built on the device
        move(rewards.values(), "cpu")
    canvases = []
    for i, size in enumerate(config.sampling.all_sizes):
        geometry = Geometry(*size)
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
        micro_batch=MicroBatch(config.run.micro_batch, policy.device),
        scored_at_once=MicroBatch(drawn, policy.device),
        evaluation=evaluation,
    )


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
    return encode_sets(
        source,
        sets,
        tokens=text_tokens(config.model.text_tokens, source),
        device=pick_device(config.model.device),
        dtype=DTYPES[pick_dtype(config)],
        memory=config.model.memory,
        offload=config.model.offload,
    )


def source_of(config: Config) -> ModelSource:
    return resolve(config.model.path, config.model.vae, config.model.text_encoders)


def pick_dtype(config: Config) -> str:
    if config.model.dtype != AUTO:
        return config.model.dtype
    return usual_dtype(pick_device(config.model.device))


def time_shift(config: Config, policy: FluxPolicy, geometry: Geometry) -> float:
    """The shift of the sigmas. Left to the model, FLUX.1-dev's follows the resolution, schnell's is none."""
    shift = config.sampling.shift
    if not isinstance(shift, str):
        return shift
    return math.exp(resolution_mu(geometry.tokens)) if policy.resolution_shift else 1.0
