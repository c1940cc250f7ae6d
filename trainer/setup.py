"""From settings to a loaded Setup."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from .config import AUTO, Config, LoraSettings
from .device import pick_device
from .iteration import Setup
from .models.flux import DTYPES, FluxPolicy, load_flux
from .models.geometry import Geometry
from .models.lora import ADAPTER, LoraError, attach_lora, detach_lora, read_lora, set_weights
from .models.source import resolve
from .models.text import Conditioning, encode_sets
from .noise import derive_seed
from .rewards import Reward, build, move
from .schedule import resolution_mu, sigma_grid

LORA_SEED = 4  # stream of random numbers, beside those of iteration.py


def prepare(config: Config) -> Setup:
    """Load everything a run needs. The text encoders are let go before the transformer comes.

    Raises:
        ConfigError, ModelError, RewardError: what is wrong with a setting or a file, in one line.
    """
    device = pick_device(config.model.device)
    sets = [prompts for prompts in (config.prompts, config.evaluation.prompts) if prompts]
    conditioning, evaluation = (*encode_all(config, sets), None)[:2]
    source = resolve(config.model.path)
    policy = load_flux(
        source,
        device=device,
        dtype=pick_dtype(config),
        guidance=config.model.guidance,
        memory=config.model.memory,
        offload=config.model.offload,
        checkpointing=config.model.checkpointing,
    )
    policy.adapter = ADAPTER
    lora = add_lora(policy, config.lora, config.run.seed)
    return assemble(config, policy, lora, conditioning, build_rewards(config), evaluation=evaluation)


def add_lora(policy: FluxPolicy, settings: LoraSettings, seed: int) -> dict[str, nn.Parameter]:
    """Put a LoRA named `policy.adapter` on the policy's transformer, new or from the file that the settings name.

    Raises:
        LoraError: the file is no LoRA, or one of another rank or for other layers.
    """
    lora = attach_lora(
        policy.transformer,
        rank=settings.rank,
        alpha=settings.alpha,
        targets=settings.targets,
        seed=derive_seed(LORA_SEED, seed),
        adapter=policy.adapter,
        device=policy.device,
    )
    if settings.start:
        try:
            _start_from(Path(settings.start), lora, settings.alpha)
        except LoraError:
            detach_lora(policy.transformer, policy.adapter)
            raise
    return lora


def _start_from(path: Path, lora: Mapping[str, nn.Parameter], expected: float) -> None:
    weights, alpha, _ = read_lora(path)
    if alpha != expected:
        raise LoraError(f"{path} has alpha {alpha:g}: set lora.alpha to it, it was {expected:g}")
    set_weights(lora, weights)


def assemble(
    config: Config,
    policy: FluxPolicy,
    lora: Mapping[str, nn.Parameter],
    conditioning: Conditioning,
    rewards: Mapping[str, Reward],
    init: Tensor | None = None,
    denoise: float = 1.0,
    evaluation: Conditioning | None = None,
) -> Setup:
    """A Setup of loaded parts: adds the grid that the settings and the picture's size ask for.

    With `init`, a latent [16, height / 8, width / 8] in the transformer's units, the trajectories are image-to-image:
    they begin at the sigma that `denoise` in (0, 1] asks for, see `sigma_grid`.
    """
    if config.run.offload_rewards:  # they were built on the device
        move(rewards.values(), "cpu")
    geometry = Geometry(config.sampling.width, config.sampling.height)
    sigmas = sigma_grid(config.sampling.steps, time_shift(config, policy, geometry), denoise)
    return Setup(config, policy, lora, conditioning, rewards, sigmas, geometry, init, evaluation)


def build_rewards(config: Config) -> dict[str, Reward]:
    device = pick_device(config.model.device)
    return {r.label: build(r.kind, r.options, device) for r in config.rewards}


def encode(config: Config, prompts: tuple[str, ...] | list[str]) -> Conditioning:
    """Embeddings of `prompts` by the configured model's text encoders."""
    return encode_all(config, [prompts])[0]


def encode_all(config: Config, sets: Sequence[Sequence[str]]) -> list[Conditioning]:
    """The same of several sets of prompts, with the encoders loaded once."""
    return encode_sets(
        resolve(config.model.path),
        sets,
        tokens=config.model.text_tokens,
        device=pick_device(config.model.device),
        dtype=DTYPES[pick_dtype(config)],
        memory=config.model.memory,
        offload=config.model.offload,
    )


def pick_dtype(config: Config) -> str:
    if config.model.dtype != AUTO:
        return config.model.dtype
    return "bfloat16" if pick_device(config.model.device).startswith("cuda") else "float32"


def time_shift(config: Config, policy: FluxPolicy, geometry: Geometry) -> float:
    """The shift of the sigmas. Left to the model, FLUX.1-dev's follows the resolution, schnell's is none."""
    shift = config.sampling.shift
    if not isinstance(shift, str):
        return shift
    return math.exp(resolution_mu(geometry.tokens)) if policy.resolution_shift else 1.0
