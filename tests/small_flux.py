"""A small random FLUX of the real classes."""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from trainer import tiny


def build_flux(folder: Path, *, guidance_embeds: bool) -> Path:
    """A FLUX of random weights in the layout of FLUX.1-dev's diffusers folder; 64 x 64 pictures take milliseconds."""
    torch.manual_seed(0)
    clip = CLIPTokenizer.from_pretrained(tiny.FLUX / "tokenizer")
    t5 = T5TokenizerFast.from_pretrained(tiny.FLUX / "tokenizer_2")
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds
        ),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=4,
            sample_size=64,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                projection_dim=32,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        ),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=32,
                d_kv=16,
                d_ff=64,
                num_layers=1,
                num_heads=2,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
            )
        ),
        tokenizer_2=t5,
    ).save_pretrained(folder)
    return folder


def build_fill(dev: Path, folder: Path) -> Path:
    """The FLUX in `dev` with a transformer that sees picture and mask, as FLUX.1-Fill does."""
    shutil.copytree(dev, folder)
    config = dict(FluxTransformer2DModel.load_config(folder / "transformer"))
    torch.manual_seed(1)
    model = FluxTransformer2DModel.from_config({**config, "in_channels": 384, "out_channels": 64})
    model.save_pretrained(folder / "transformer")
    return folder
