"""Graphs for a ComfyUI on the card made of the CPU, and how two LoRAs of theirs compare."""

import graphs
import torch
from safetensors.torch import load_file

TOLERANCE = 1e-4  # of the LoRA's movement; it was 0 wherever this was tried, as the card computes on the same CPU
MIB = 2**20  # bytes


def training(name: str, *, device: str = "auto", precision: str = "float32", memory: str = "bf16", **changes) -> dict:
    small = {"iterations": 1, "group_size": 4, "steps": 2, "prompts_per_iteration": 1}
    graph = graphs.train(name=name, precision=precision, **small | changes)
    graph["1"]["inputs"] |= {"device": device, "memory": memory}
    graph["6"]["inputs"]["overwrite"] = True
    return graphs.with_settings(graph, updates_per_rollout=2, kl_weight=0.1, ema_decay=0.5)


def from_picture(graph: dict, *, denoise: float = 0.6, mask: bool = False, **encode) -> dict:
    """The graph's Train begins from a picture that the policy's own VAE encodes."""
    graph |= {
        "20": {"class_type": "LoadImage", "inputs": {"image": "init.png"}},
        "21": {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}},
        "22": graphs.node("EncodeImage", policy=["1", 0], neighborhood=["3", 0], images=["20", 0], **encode),
    }
    if mask:
        graph["22"]["inputs"]["mask"] = ["21", 0]
    graph["5"]["inputs"] |= {"latent": ["22", 0], "denoise": denoise}
    return graph


def by_comfyuis_vae(graph: dict) -> dict:
    """Encoded and decoded by ComfyUI's own VAE, on ComfyUI's device."""
    graph |= {
        "20": {"class_type": "LoadImage", "inputs": {"image": "init.png"}},
        "23": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
        "24": {"class_type": "VAEEncode", "inputs": {"pixels": ["20", 0], "vae": ["23", 0]}},
    }
    graph["5"]["inputs"] |= {"latent": ["24", 0], "denoise": 0.6, "vae": ["23", 0]}
    return graph


def looked_at(graph: dict) -> dict:
    """With evaluation prompts, a held-out reward, and rewards that wait on the host."""
    graph["42"] = graphs.node("ColourfulnessReward")
    off = {f"{what}_{n}": value for n in range(1, 5) for what, value in (("weight", 1.0), ("held_out", False))}
    combined = off | {"reward_1": ["4", 0], "reward_2": ["42", 0], "held_out_2": True}
    graph["41"] = graphs.node("CombineRewards", **combined)
    graph["40"] = graphs.node("PromptSet", policy=["1", 0], text="panda on a pink background", file="")
    graph["5"]["inputs"] |= {"reward": ["41", 0], "offload_rewards": True}
    graph["5"]["inputs"] |= {"evaluation": ["40", 0], "evaluate_every": 1}
    return graph


def offloaded(graph: dict) -> dict:
    graph["1"]["inputs"] |= {"offload": 1.0}
    return graph


def stepping(*, device: str = "auto", rank: int = 5) -> dict:
    graph = graphs.steps(precision="float32", rank=rank)
    graph["1"]["inputs"] |= {"device": device, "memory": "bf16"}
    graph["8"] = graphs.node("SaveLora", lora=["7", 0], name=f"step-{device}", overwrite=True)
    return graph


CLIP = {"clip_name1": "tiny_clip.safetensors", "clip_name2": "tiny_t5.safetensors", "type": "flux"}


def of_files(graph: dict) -> dict:
    """The graph with the model of a single file, ComfyUI's text encoders and ComfyUI's VAE, as in template 3."""
    text = graph["2"]["inputs"]["text"] = "spider on a red background"
    graph["1"]["inputs"]["model"] = "tiny_flux.safetensors"
    graph |= {
        "clip": {"class_type": "DualCLIPLoader", "inputs": CLIP},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["clip", 0]}},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
    }
    graph["2"]["inputs"]["conditioning"] = ["text", 0]
    graph["5"]["inputs"]["vae"] = ["vae", 0]
    return graph


def drawing(*, seed: int) -> dict:
    """A picture by ComfyUI's own loaders and sampler, of the tiny single files."""
    euler = {"seed": seed, "steps": 2, "cfg": 1, "sampler_name": "euler", "scheduler": "simple", "denoise": 1}
    links = {"model": ["unet", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
    nodes = {
        "unet": ("UNETLoader", {"unet_name": "tiny_flux.safetensors", "weight_dtype": "default"}),
        "clip": ("DualCLIPLoader", CLIP),
        "text": ("CLIPTextEncode", {"text": "a red apple on a white background", "clip": ["clip", 0]}),
        "latent": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampler": ("KSampler", euler | links),
        "vae": ("VAELoader", {"vae_name": "tiny_vae.safetensors"}),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["vae", 0]}),
        "shown": ("PreviewImage", {"images": ["decode", 0]}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def movement(server, name: str) -> dict[str, torch.Tensor]:
    tensors = load_file(server.base / f"models/loras/{name}.safetensors")
    return {key: tensor for key, tensor in tensors.items() if "lora_B" in key}  # which begins as 0


def assert_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    length = sum(tensor.square().sum() for tensor in expected.values()).sqrt()
    apart = sum((found[key] - expected[key]).square().sum() for key in expected).sqrt()
    print(f"{apart / length:.1e} of the LoRA's movement")
    assert length > 0
    assert apart < TOLERANCE * length
