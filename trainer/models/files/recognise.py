"""What a file of weights is, by the names in it: to tell somebody who chose the wrong one."""

from collections.abc import Iterable, Mapping

FLUX1 = "a FLUX.1 transformer"
KINDS = {  # what it is: names, or parts of names, that nothing above it has
    "a LoRA": (".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora.down.", ".hada_w1", ".lokr_w1"),
    "a FLUX.2 transformer": ("double_stream_modulation_img.",),
    "a Chroma transformer": ("distilled_guidance_layer.",),
    "a HunyuanVideo transformer": ("individual_token_refiner.",),
    "a ControlNet": (
        "controlnet_blocks.",
        "controlnet_down_blocks.",
        "input_hint_block.",
        "controlnet_cond_embedding.",
    ),
    FLUX1: (
        "double_blocks.0.img_attn.qkv.weight",
        "single_transformer_blocks.0.proj_mlp.weight",
        "single_transformer_blocks.0.mlp_fc1.",  # Nunchaku's name
    ),
    "a Stable Diffusion 3 transformer": ("joint_blocks.0.",),
    "a Qwen-Image transformer": ("transformer_blocks.0.img_mod.1.",),
    "a Wan transformer": ("blocks.0.cross_attn.norm_q.",),
    "a whole SDXL checkpoint": ("conditioner.embedders.1.",),
    "a whole Stable Diffusion checkpoint": ("cond_stage_model.",),
    "an SDXL UNet": ("label_emb.0.0.weight", "add_embedding.linear_1.weight"),
    "a Stable Diffusion UNet": ("input_blocks.0.0.weight", "down_blocks.0.resnets.0.time_emb_proj."),
    "a T5 text encoder": ("encoder.block.0.layer.0.SelfAttention.q.",),
    "a CLIP text encoder": ("text_model.encoder.layers.0.", "transformer.resblocks.0.attn."),
    "a CLIP vision encoder": ("vision_model.encoder.layers.0.",),
    "a language model": ("layers.0.self_attn.q_proj.",),
    "a VAE": ("decoder.conv_in.weight", "decoder.conv1.weight"),
}
QUANTISERS = {  # who made weights that are not read: parts of names that only they have
    "Nunchaku": (".wscales", ".wzeros"),
    "optimum-quanto": (".weight._data",),
    "torchao": ("._weight_qdata", ".weight:qdata"),
    "bitsandbytes in 8 bits": (".SCB",),
    "compressed-tensors": (".weight_packed",),
    "GPTQ or AWQ": (".qzeros",),
}


def recognise(names: Iterable[str]) -> str:
    """A few words, such as "an SDXL UNet"; "of a kind that is not known" if nothing fits."""
    every = "\n".join(names)
    kind, by = _first(KINDS, every) or "of a kind that is not known", quantiser([every])
    return f"{kind} quantised by {by}, which is not read" if by else kind


def quantiser(names: Iterable[str]) -> str:
    """Who quantised a file with such names in a way that is not read; empty if nobody is known to have."""
    return _first(QUANTISERS, "\n".join(names))


def _first(marks: Mapping[str, Iterable[str]], names: str) -> str:
    return next((what for what, its in marks.items() if any(mark in names for mark in its)), "")
