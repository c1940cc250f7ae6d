"""Models of random weights at any size: made on meta, then filled by the loaders' own `put`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPModel

from ...engine.setup import add_lora, assemble, placement_of
from ...engine.state import Setup
from ...models.conditioning import Conditioning
from ...models.files.weights import Put, widened
from ...models.flux1.checkpointing import checkpoint_blocks
from ...models.flux1.conditions import conditioning
from ...models.flux1.family import flux_readied
from ...models.flux1.geometry import Geometry
from ...models.flux1.policy import FluxPolicy
from ...models.flux1.vae import Vae
from ...models.lora.attach import ADAPTER
from ...models.storage.placement import DTYPES
from ...planning import models as shapes
from ...planning.models import META
from ...planning.rewards import clip_config
from ...rewards.base import Reward
from ...rewards.clip import ClipEncoder, ClipReward
from ...rewards.preprocess import Preprocess
from ...settings.config import Config, InitSettings
from ...stages.inpainting import Init

GAIN = 0.6  # of a linear layer: deep random models with more of it amplify rounding, with less of it do nothing
LORA_B = 0.02  # standard deviation of the LoRA's B: zeros would hide half of its gradient
SEED = 7


def fill(module: nn.Module, put: Put, draw_on: torch.device | str, seed: int = SEED) -> None:
    """Give every parameter of `module` (on meta, prepared) random numbers by `put`; the same seed gives the same.

    Scales of norms are 1, biases 0, the rest is normal with a standard deviation of GAIN / sqrt(inputs).
    """
    generator = torch.Generator(draw_on).manual_seed(seed)
    for name, parameter in list(module.named_parameters()):
        put(module, name, drawn(name, parameter.shape, generator), None)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_meta:  # CLIP's positions, which count up
                owner.register_buffer(name, torch.arange(buffer.shape[-1]).expand(buffer.shape), persistent=False)


def drawn(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape, device=generator.device)
    if len(shape) < 2:  # the logarithm of CLIP's scale, 1; a norm's scale
        return torch.full(shape, float(len(shape)), device=generator.device)
    inputs = math.prod(shape[1:])
    return torch.randn(shape, generator=generator, device=generator.device).mul_(GAIN / math.sqrt(inputs))


def changed(model: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The model's sizes with some of them changed. diffusers' own notes say which were defaults, and keep them so."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")} | dict(changes)


def random_transformer(
    config: Config, changes: Mapping[str, Any], draw_on: torch.device | str
) -> FluxTransformer2DModel:
    """The transformer of `config.model`'s sizes with some of them changed, its weights kept as the settings say."""
    transformer = shapes.transformer(config.model.path)
    if changes:
        with META:
            transformer = FluxTransformer2DModel.from_config(changed(transformer, changes))
    placement = placement_of(config)
    fill(transformer, flux_readied(placement)(transformer), draw_on)
    if placement.checkpointing:
        checkpoint_blocks(transformer)
    return transformer.requires_grad_(False).eval()


def random_vae(path: str, changes: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKL:
    """The autoencoder, on the CPU as loaded ones are."""
    vae = shapes.autoencoder(path)
    if changes:
        with META:
            vae = AutoencoderKL.from_config(changed(vae, changes))
    fill(vae, widened(dtype), "cpu")
    return vae.requires_grad_(False).eval()


def random_reward(kind: str, device: str, dtype: torch.dtype, draw_on: torch.device | str) -> ClipReward:
    """A CLIP of the sizes that the reward `kind` has."""
    with META:
        model = CLIPModel(clip_config(kind, {}))
    fill(model, widened(dtype, device), draw_on)
    length = model.config.text_config.max_position_embeddings
    model.requires_grad_(False).eval()
    encoder = ClipEncoder(model, lambda _: list(range(length)), device, dtype)
    return ClipReward(encoder, Preprocess(encoder.size, letterbox=True))


def random_conditioning(config: Config, transformer: FluxTransformer2DModel) -> Conditioning:
    """What text encoders would say of the prompts; the same numbers on every device."""
    generator = torch.Generator().manual_seed(SEED)
    shape, count = transformer.config, len(config.prompts)
    embeddings = torch.randn(count, shapes.tokens(config.model), shape.joint_attention_dim, generator=generator)
    pooled = torch.randn(count, shape.pooled_projection_dim, generator=generator)
    return conditioning(*(t.to(DTYPES[config.model.dtype]) for t in (embeddings, pooled)))


def random_policy(
    config: Config, draw_on: torch.device | str, changes: Mapping[str, Any], vae: Mapping[str, Any]
) -> FluxPolicy:
    transformer = random_transformer(config, changes, draw_on)
    narrow = DTYPES[config.model.dtype]
    # as for a loaded one: its activations leave float16's range
    autoencoder = Vae(random_vae(config.model.path, vae, torch.float32 if narrow == torch.float16 else narrow))
    guided = bool(transformer.config.guidance_embeds)
    return FluxPolicy(transformer, autoencoder, config.model.guidance, guided, ADAPTER)


def random_setup(
    config: Config,
    rewards: Mapping[str, Reward],
    *,
    draw_on: torch.device | str = "cpu",
    changes: Mapping[str, Any] | None = None,
    vae: Mapping[str, Any] | None = None,
) -> Setup:
    """Everything a run needs, of random weights, with a LoRA that does something.

    Args:
        draw_on: where the transformer's numbers are drawn: only the CPU gives the same ones for every device.
        changes, vae: sizes of the transformer and of the autoencoder that are not `config.model.path`'s.
    """
    policy = random_policy(config, draw_on, changes or {}, vae or {})
    lora = add_lora(policy, config.lora, config.run.seed)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in lora.items():
            if ".lora_B." in name:
                parameter.copy_(LORA_B * torch.randn(parameter.shape, generator=generator))
    told = random_conditioning(config, policy.network)
    return assemble(config, policy, lora, told, rewards, random_inits(config, policy))


def random_inits(config: Config, policy: FluxPolicy) -> Sequence[Init]:
    """A random picture at every size, and a mask in its middle if the settings name one; none without a digest."""
    return [_init(config.init, policy, Geometry(*size)) for size in config.sampling.all_sizes if config.init.digest]


def _init(settings: InitSettings, policy: FluxPolicy, geometry: Geometry) -> Init:
    size = geometry.height, geometry.width
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(SEED))
    mask = torch.zeros(size)
    mask[size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = 1
    return policy.begin_from(images, mask if settings.mask else None, geometry, reference=settings.reference)
