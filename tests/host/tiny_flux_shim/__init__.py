"""TEST-ONLY pack: lets ComfyUI's own loaders open the tiny FLUX files that `tiny_files.py` writes.

ComfyUI takes the sizes of FLUX's parts for granted (24 heads, T5-XXL, CLIP-L, an autoencoder of 128 channels). This
pack replaces three functions of ComfyUI by ones that read the sizes off the weights. The loader nodes, the patcher, the
sampler and the LoRA code stay as they are, and so does every model of ordinary size.
"""

from contextlib import contextmanager

import comfy.model_detection
import comfy.sd
from comfy.ldm.modules.diffusionmodules import model as autoencoder
from comfy.sd1_clip import SDTokenizer
from comfy.text_encoders.flux import FluxTokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

NODE_CLASS_MAPPINGS = {}

HEAD = 32  # channels of a head in the transformer, split into these axes
AXES = [4, 14, 14]
TEXT_HEAD = 16  # channels of a head in both text encoders
TEXT_TOKENS = 32

Q = "encoder.block.0.layer.0.SelfAttention.q.weight"
WI = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
FC1 = "text_model.encoder.layers.0.mlp.fc1.weight"

detect_unet_config = comfy.model_detection.detect_unet_config
load_text_encoder_state_dicts = comfy.sd.load_text_encoder_state_dicts
vae_init = comfy.sd.VAE.__init__


def detect_tiny_unet_config(state_dict, key_prefix, metadata=None):
    config = detect_unet_config(state_dict, key_prefix, metadata=metadata)
    if config and config.get("image_model") == "flux" and config["hidden_size"] < 1024:
        config |= {"num_heads": config["hidden_size"] // HEAD, "axes_dim": AXES}
    return config


def load_tiny_text_encoders(state_dicts, *args, model_options=None, **kwargs):
    """The tokenizers come along in the files: ComfyUI's own ones have other vocabularies."""
    tokenizers = [sd.pop("tokenizer_json", None) for sd in state_dicts]
    if None in tokenizers:
        return load_text_encoder_state_dicts(state_dicts, *args, model_options=model_options or {}, **kwargs)
    options = {**(model_options or {}), **{name: size for sd in state_dicts for name, size in text_sizes(sd).items()}}
    texts = {"clip_l" if FC1 in sd else "t5xxl": bytes(t) for sd, t in zip(state_dicts, tokenizers, strict=True)}
    clip = load_text_encoder_state_dicts(state_dicts, *args, model_options=options, **kwargs)
    clip.tokenizer = TinyTokenizer(**texts)
    clip.cond_stage_model.clip_l.special_tokens = {"end": clip.tokenizer.clip_l.end_token}
    return clip


def text_sizes(sd):
    if FC1 in sd:
        inner, width = sd[FC1].shape
        layers = comfy.model_detection.count_blocks(sd, "text_model.encoder.layers.{}.")
        sizes = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": width // TEXT_HEAD}
        return {"model_config": {**sizes, "num_hidden_layers": layers, "projection_dim": width}}
    layers = comfy.model_detection.count_blocks(sd, "encoder.block.{}.")
    vocabulary, width = sd["shared.weight"].shape
    sizes = {"d_model": width, "d_kv": TEXT_HEAD, "num_heads": len(sd[Q]) // TEXT_HEAD, "d_ff": len(sd[WI])}
    return {"t5xxl_model_config": {**sizes, "num_layers": layers, "vocab_size": vocabulary}}


class TinyTokenizer(FluxTokenizer):
    def __init__(self, clip_l, t5xxl):
        self.clip_l = SDTokenizer(tokenizer_class=FromBytes(clip_l))
        self.t5xxl = SDTokenizer(
            tokenizer_class=FromBytes(t5xxl),
            embedding_key="t5xxl",
            has_start_token=False,
            pad_with_end=False,
            pad_to_max_length=False,
            min_length=TEXT_TOKENS,
        )


class FromBytes:
    """Stands where SDTokenizer expects a class of transformers that reads files."""

    def __init__(self, data):
        self.data = data

    def from_pretrained(self, _path):
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(self.data.decode()))


def tiny_vae_init(self, sd=None, *args, config=None, **kwargs):
    groups = sd.pop("norm_num_groups", None)
    if groups is None:
        return vae_init(self, sd, *args, config=config, **kwargs)
    channels = [len(sd[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"]) for i in range(4)]
    latent = sd["decoder.conv_in.weight"].shape[1]
    sizes = {"ch": channels[0], "ch_mult": [c // channels[0] for c in channels], "z_channels": latent, "double_z": True}
    blocks = comfy.model_detection.count_blocks(sd, "encoder.down_blocks.0.resnets.{}.")
    sizes |= {"num_res_blocks": blocks, "in_channels": 3, "out_ch": 3, "resolution": 256, "attn_resolutions": []}
    with norm_groups(int(groups)):
        vae_init(self, sd, *args, config={"params": {"ddconfig": sizes, "embed_dim": latent}}, **kwargs)
    self.latent_channels = latent


@contextmanager
def norm_groups(groups):
    """Inside, ComfyUI's autoencoders are built with this many groups instead of 32."""
    before = autoencoder.Normalize.__defaults__
    autoencoder.Normalize.__defaults__ = (groups,)
    try:
        yield
    finally:
        autoencoder.Normalize.__defaults__ = before


comfy.model_detection.detect_unet_config = detect_tiny_unet_config
comfy.sd.load_text_encoder_state_dicts = load_tiny_text_encoders
comfy.sd.VAE.__init__ = tiny_vae_init
