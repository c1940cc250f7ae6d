"""The flow transformer and its two text encoders, trained together on latents, assembled as a FluxPipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .fit import fit
from .pictures import Pictures
from .text import CLIP_LENGTH, clip_tokenizer, t5_tokenizer

BATCH = 48
TEXT_WIDTH = 128
# T5 lengths (tokens) met in training. The reference pipelines do not mask padding, so its amount must not matter.
TEXT_LENGTHS, TEXT_SHARES = (12, 32, 128), (0.82, 0.15, 0.03)


@dataclass(frozen=True)
class Recipe:
    """First pictures of all kinds, then steadier ones: those are what the finished model draws."""

    steps: int
    varied_steps: int
    last_steps: int  # further ones, with the captions of the end
    pictures: int  # of each row, drawn once


def new_models(captions: Sequence[str]) -> nn.ModuleDict:
    clip, t5 = clip_tokenizer(captions), t5_tokenizer(captions)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(4, 14, 14),
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=8,
            projection_dim=TEXT_WIDTH,
            max_position_embeddings=CLIP_LENGTH,
            bos_token_id=clip.bos_token_id,
            eos_token_id=clip.eos_token_id,
            pad_token_id=clip.pad_token_id,
        )
    )
    text_encoder_2 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5),
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=8,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    return nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder, "text_encoder_2": text_encoder_2})


def train(vae: AutoencoderKL, data: Pictures, folder: Path, recipe: Recipe) -> tuple[nn.ModuleDict, float]:
    """Flow matching: v = eps - x_0 at sigma, mean squared error. Returns the models and the last loss."""
    torch.manual_seed(0)
    models = new_models(data.captions)
    varied = packed_latents(vae, data, recipe.pictures, steady=False)
    steady = packed_latents(vae, data, recipe.pictures, steady=True) if recipe.varied_steps < recipe.steps else varied
    clip_ids = torch.tensor(clip_tokenizer(data.captions)(data.captions, padding="longest").input_ids)
    t5_ids = torch.tensor(
        t5_tokenizer(data.captions)(data.captions, padding="max_length", max_length=max(TEXT_LENGTHS)).input_ids
    )
    image_ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)

    def flow_matching(rng: np.random.Generator, step: int, *, last: bool = False) -> torch.Tensor:
        latents = varied if step < recipe.varied_steps else steady
        rows = torch.from_numpy(rng.choice(len(latents), BATCH, replace=False))
        x_0 = latents[rows, torch.from_numpy(rng.integers(recipe.pictures, size=BATCH))]  # [B, 16, 64]
        eps = torch.randn_like(x_0)
        sigma = torch.where(torch.rand(BATCH) < 0.75, torch.sigmoid(0.3 + torch.randn(BATCH)), torch.rand(BATCH))
        x = torch.lerp(x_0, eps, sigma[:, None, None])
        length = int(rng.choice(TEXT_LENGTHS, p=TEXT_SHARES))
        told = data.told(rows.tolist(), rng, last=last)
        v = models["transformer"](
            hidden_states=x,
            timestep=sigma,
            encoder_hidden_states=models["text_encoder_2"](t5_ids[told, :length])[0],
            pooled_projections=models["text_encoder"](clip_ids[told]).pooler_output,
            txt_ids=torch.zeros(length, 3),
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return (v - (eps - x_0)).square().mean()

    loss = fit("flux", models, flow_matching, folder, steps=recipe.steps, lr=6e-4, ema_decay=0.999, seed=3)
    if recipe.last_steps:
        at_last = partial(flow_matching, last=True)
        loss = fit("flux-last", models, at_last, folder, steps=recipe.last_steps, lr=3e-4, ema_decay=0.999, seed=4)
    return models, loss


@torch.no_grad()
def packed_latents(vae: AutoencoderKL, data: Pictures, count: int, *, steady: bool) -> torch.Tensor:
    """Latents of `count` pictures of every row, packed 2 x 2: [rows, count, 16, 64]."""
    rng = np.random.default_rng(3)
    packed = []
    for _ in range(count):
        images = data.draw(list(range(len(data.captions))), rng, steady=steady)
        z = torch.cat([vae.encode(x * 2 - 1).latent_dist.mean for x in images.split(32)])
        packed.append(FluxPipeline._pack_latents(z, len(z), 16, 8, 8))
    return torch.stack(packed, 1)


def assemble(captions: Sequence[str], vae: AutoencoderKL, models: nn.ModuleDict) -> FluxPipeline:
    """A FluxPipeline with FLUX.1-dev's resolution-dependent time shift."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
        vae=vae,
        text_encoder=models["text_encoder"],
        tokenizer=clip_tokenizer(captions),
        text_encoder_2=models["text_encoder_2"],
        tokenizer_2=t5_tokenizer(captions),
        transformer=models["transformer"],
    )  # fmt: skip
