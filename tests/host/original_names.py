"""A diffusers FLUX transformer's weights under the names of Black Forest Labs' own files."""

import torch
from diffusers import FluxTransformer2DModel


def original_layout(model: FluxTransformer2DModel) -> dict[str, torch.Tensor]:
    """The weights as black-forest-labs/flux names and fuses them, written down module by module."""
    w = model.state_dict()
    out = {}

    def put(name, *parts):
        for kind in ("weight", "bias"):
            out[f"{name}.{kind}"] = torch.cat([w[f"{part}.{kind}"] for part in parts])

    def scale(name, part):
        out[f"{name}.scale"] = w[f"{part}.weight"].clone()

    put("img_in", "x_embedder")
    put("txt_in", "context_embedder")
    for name, part in (("time_in", "timestep"), ("vector_in", "text"), ("guidance_in", "guidance")):
        if f"time_text_embed.{part}_embedder.linear_1.weight" in w:
            put(f"{name}.in_layer", f"time_text_embed.{part}_embedder.linear_1")
            put(f"{name}.out_layer", f"time_text_embed.{part}_embedder.linear_2")
    for i in range(model.config.num_layers):
        d, b = f"transformer_blocks.{i}", f"double_blocks.{i}"
        put(f"{b}.img_mod.lin", f"{d}.norm1.linear")
        put(f"{b}.txt_mod.lin", f"{d}.norm1_context.linear")
        put(f"{b}.img_attn.qkv", f"{d}.attn.to_q", f"{d}.attn.to_k", f"{d}.attn.to_v")
        put(f"{b}.txt_attn.qkv", f"{d}.attn.add_q_proj", f"{d}.attn.add_k_proj", f"{d}.attn.add_v_proj")
        put(f"{b}.img_attn.proj", f"{d}.attn.to_out.0")
        put(f"{b}.txt_attn.proj", f"{d}.attn.to_add_out")
        scale(f"{b}.img_attn.norm.query_norm", f"{d}.attn.norm_q")
        scale(f"{b}.img_attn.norm.key_norm", f"{d}.attn.norm_k")
        scale(f"{b}.txt_attn.norm.query_norm", f"{d}.attn.norm_added_q")
        scale(f"{b}.txt_attn.norm.key_norm", f"{d}.attn.norm_added_k")
        for side, part in (("img", "ff"), ("txt", "ff_context")):
            put(f"{b}.{side}_mlp.0", f"{d}.{part}.net.0.proj")
            put(f"{b}.{side}_mlp.2", f"{d}.{part}.net.2")
    for i in range(model.config.num_single_layers):
        d, b = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
        put(f"{b}.modulation.lin", f"{d}.norm.linear")
        put(f"{b}.linear1", f"{d}.attn.to_q", f"{d}.attn.to_k", f"{d}.attn.to_v", f"{d}.proj_mlp")
        put(f"{b}.linear2", f"{d}.proj_out")
        scale(f"{b}.norm.query_norm", f"{d}.attn.norm_q")
        scale(f"{b}.norm.key_norm", f"{d}.attn.norm_k")
    put("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):  # diffusers: scale, shift; the original: shift, scale
        factor, shift = w[f"norm_out.linear.{kind}"].chunk(2)
        out[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, factor])
    return out
