"""The 8x autoencoder with 16 latent channels (diffusers' AutoencoderKL, FLUX's geometry)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from .fit import fit
from .pictures import Pictures, sample

BATCH = 8
KL_WEIGHT = 64e-4
LATENT_NOISE = 0.05  # the decoder also meets latents that no encoder made


@dataclass(frozen=True)
class Recipe:
    encoder_steps: int = 3000
    decoder_steps: int = 3000
    start: Path | None = None  # an autoencoder to go on from


def new_autoencoder(recipe: Recipe) -> AutoencoderKL:
    if recipe.start:
        return AutoencoderKL.from_pretrained(recipe.start, torch_dtype=torch.float32)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=1,  # more groups would normalise the colours away
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
    )


def train_autoencoder(data: Pictures, folder: Path, recipe: Recipe) -> tuple[AutoencoderKL, float]:
    """Train encoder and decoder together and normalise the latents; returns the model and its last loss.

    From here on the encoder is final: the flow transformer can be trained while the decoder goes on.
    """
    torch.manual_seed(0)
    vae = new_autoencoder(recipe)

    def loss(rng: np.random.Generator, step: int) -> torch.Tensor:
        _, images = sample(data, BATCH, rng, unseen=False)
        x = images * 2 - 1
        posterior = vae.encode(x).latent_dist
        reconstruction = vae.decode(posterior.sample()).sample
        return picture_loss(reconstruction, x) + KL_WEIGHT * posterior.kl().mean() / x[0].numel()

    last = fit("autoencoder", vae, loss, folder, steps=recipe.encoder_steps, lr=1.5e-3, seed=1)
    normalise_latents(vae, data)
    return vae, last


def train_decoder(vae: AutoencoderKL, data: Pictures, folder: Path, recipe: Recipe) -> float:
    """Train the decoder on for the final latents, slightly disturbed; returns the last loss."""
    vae.encoder.requires_grad_(False)

    def loss(rng: np.random.Generator, step: int) -> torch.Tensor:
        _, images = sample(data, BATCH, rng, unseen=False)
        x = images * 2 - 1
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
        return picture_loss(vae.decode(z + LATENT_NOISE * torch.randn_like(z)).sample, x)

    return fit("decoder", vae, loss, folder, steps=recipe.decoder_steps, lr=5e-4, seed=2)


def picture_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + L1 of the image gradients, on images in [-1, 1]."""
    loss = F.l1_loss(output, target) + 4 * F.mse_loss(output, target)
    for dim in (2, 3):
        loss = loss + F.l1_loss(output.diff(dim=dim), target.diff(dim=dim))
    return loss


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, data: Pictures) -> None:
    """Fold a per-channel normalisation of the latents into the encoder's last and the decoder's first convolution.

    diffusers knows one scalar scaling_factor only. The shift meets zero padding at the decoder's border, which the
    decoder's further training takes care of.
    """
    _, images = sample(data, 512, np.random.default_rng(7), unseen=False)
    z = torch.cat([vae.encode(x * 2 - 1).latent_dist.mean for x in images.split(64)])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    head = vae.encoder.conv_out  # rows: 16 means, 16 log variances
    channels = len(mean)
    head.weight[:channels] /= std[:, None, None, None]
    head.bias[:channels] = (head.bias[:channels] - mean) / std
    head.bias[channels:] -= 2 * std.log()
    tail = vae.decoder.conv_in
    tail.bias += torch.einsum("oikl,i->o", tail.weight, mean)
    tail.weight *= std[None, :, None, None]


@torch.no_grad()
def psnr(vae: AutoencoderKL, data: Pictures) -> float:
    """Mean PSNR (dB) over all compositions held out from training, images in [0, 1]."""
    rng = np.random.default_rng(11)
    _, images = sample(data, min(128, sum(data.held_out)), rng, unseen=True)
    output = torch.cat([vae(x * 2 - 1).sample for x in images.split(32)]) / 2 + 0.5
    error = (output.clamp(0, 1) - images).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())
