"""A LoRA means the same in ComfyUI as in the trainer: same latents, every key consumed, same embeddings."""

import json
import subprocess
import sys

import graphs
import pytest
import tiny_files
import torch
from comfy_install import ROOT
from safetensors.torch import load_file, save_file
from seen_latents import shown

from trainer import tiny
from trainer.models.files.source import resolve
from trainer.models.flux1.text import encode_prompts
from trainer.models.lora.export import export_lora, file_tensors
from trainer.models.storage.placement import Placement
from trainer.settings.config_file import parse
from trainer.training.evaluate import sample
from trainer.training.prepare import prepare

PROMPT = "a red apple on a white background"
SEED, STEPS = 7, 5  # sigmas of 5 steps lie on the table of 10,000 that ComfyUI picks from


@pytest.fixture(scope="module")
def models(server):
    tiny_files.write(server.base / "models")


def our_latent(server, name: str, rank: int, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [16, 8, 8] of our rollout without and with a random LoRA, which goes into models/loras/`name`."""
    config = parse(
        {
            "model": {"path": "embedded", "device": "cpu", "text_tokens": tiny.TEXT_TOKENS},
            "lora": {"rank": rank, "alpha": alpha},
            "sampling": {"width": 64, "height": 64, "steps": STEPS, "solver": "euler", "shift": 1.0},
            "prompts": [PROMPT],
            "rewards": [{"kind": "colourfulness"}],
        }
    )
    setup = prepare(config)
    generator = torch.Generator().manual_seed(1)
    for p in setup.lora.values():
        p.data = 0.15 * torch.randn(p.shape, generator=generator)
    export_lora(server.base / "models/loras" / name, file_tensors(setup.lora, alpha), {})
    looking, latents = shown(setup)
    with setup.policy.reference():
        sample(looking, setup.conditioning, [PROMPT], [SEED])
    sample(looking, setup.conditioning, [PROMPT], [SEED])
    return latents[0][0], latents[1][0]


def graph(lora: str | None, prefix: str) -> dict:
    """ComfyUI's own loaders, LoRA loader and Euler sampler."""
    euler = {"seed": SEED, "steps": STEPS, "cfg": 1, "sampler_name": "euler", "scheduler": "simple", "denoise": 1}
    clip = {"clip_name1": "tiny_clip.safetensors", "clip_name2": "tiny_t5.safetensors", "type": "flux"}
    model = ["lora", 0] if lora else ["unet", 0]
    links = {"model": model, "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
    nodes = {
        "unet": ("UNETLoader", {"unet_name": "tiny_flux.safetensors", "weight_dtype": "default"}),
        "clip": ("DualCLIPLoader", clip),
        "text": ("CLIPTextEncode", {"text": PROMPT, "clip": ["clip", 0]}),
        "latent": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampler": ("KSampler", euler | links),
        "save": ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": prefix}),
    }
    if lora:
        nodes["lora"] = ("LoraLoaderModelOnly", {"model": ["unet", 0], "lora_name": lora, "strength_model": 1.0})
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def their_latent(server, lora: str | None) -> torch.Tensor:
    """The sampler's latent [16, 8, 8], with ComfyUI's scale and shift of FLUX latents taken off again."""
    prefix = f"latent-{lora or 'base'}"
    server.wait(server.queue(graph(lora, prefix)))
    (file,) = (server.base / "output").glob(f"{prefix}*.latent")
    return (load_file(file)["latent_tensor"][0] - tiny_files.SHIFT) * tiny_files.SCALE


@pytest.mark.parametrize(("rank", "alpha"), [(8, 8.0), (4, 12.0)])
def test_the_lora_draws_the_same_latent_on_both_sides(server, models, rank, alpha):
    name = f"same-{rank}-{alpha:g}.safetensors"
    base, ours = our_latent(server, name, rank, alpha)
    assert (ours - base).abs().max() > 0.1  # the LoRA does something
    before = len(server.log())
    theirs = their_latent(server, name)
    difference = (theirs - ours).abs().max().item()
    print(f"rank {rank}, alpha {alpha:g}: largest difference {difference:.1e}")
    assert difference <= 1e-3
    assert "lora key not loaded" not in server.log()[before:]


def test_comfyui_complains_about_a_key_that_fits_nowhere(server, models):
    """The assertion above looks for the right words."""
    our_latent(server, "whole.safetensors", 4, 4.0)
    folder = server.base / "models/loras"
    tensors = load_file(folder / "whole.safetensors")
    odd = {name.replace("transformer.", "transformer.none.", 1): t for name, t in tensors.items()}
    save_file(odd, folder / "odd.safetensors")
    their_latent(server, "odd.safetensors")
    assert "lora key not loaded" in server.log()


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_every_key_of_a_full_size_lora_finds_its_layer_in_comfyui(comfyui, targets):
    """FLUX.1-dev's own layout, on the meta device: 19 double and 38 single blocks, no weights."""
    command = [sys.executable, ROOT / "tests/host/full_size_keys.py", comfyui, targets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    double, single = {"attention": (8, 3), "all-linear": (12, 5)}[targets]
    assert found["modules"] == 19 * double + 38 * single
    assert found["loaded"] == found["modules"]
    assert found["shapes_that_fit"] == found["modules"]
    assert not found["complaints"]
    assert found["file_tensors"] == 780
    assert found["misfit_of_the_file"] == ""


def test_conditioning_of_comfyuis_encoders_equals_ours(server, models):
    """On the same weights and tokens, as the policy gets it: through Prompt Set, written by a test-only node."""
    prompts = [PROMPT, "penguin on a pink background"]
    clip = {"clip_name1": "tiny_clip.safetensors", "clip_name2": "tiny_t5.safetensors", "type": "flux"}
    nodes = {
        "clip": ("DualCLIPLoader", clip),
        "one": ("CLIPTextEncode", {"text": prompts[0], "clip": ["clip", 0]}),
        "two": ("CLIPTextEncode", {"text": prompts[1], "clip": ["clip", 0]}),
        "both": ("ConditioningCombine", {"conditioning_1": ["one", 0], "conditioning_2": ["two", 0]}),
        "write": ("ProbeWritePrompts", {"prompts": ["set", 0], "name": "prompts"}),
    }
    graph = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    graph["policy"] = graphs.parts()["1"]
    links = {"policy": ["policy", 0], "conditioning": ["both", 0]}
    graph["set"] = graphs.node("PromptSet", text="\n".join(prompts), file="", **links)
    server.wait(server.queue(graph))
    theirs = load_file(server.base / "output/prompts.safetensors")

    tokens = theirs["embeddings"].shape[1]
    ours = encode_prompts(resolve("embedded"), prompts, Placement("cpu", torch.float32), tokens=tokens)
    assert ours.tensors["embeddings"].std() > 0.1
    torch.testing.assert_close(theirs, dict(ours.tensors), rtol=0, atol=1e-5)
