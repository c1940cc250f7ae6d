"""A FLUX in a single file, with ComfyUI's own text encoders and VAE around it: what most users of ComfyUI have."""

import json
import shutil
from pathlib import Path

import graphs
import pytest
import tiny_files
import torch
from comfy_files import text, write_quantised
from comfy_server import ExecutionError
from diffusers import FluxTransformer2DModel
from flux_files import write_gguf
from original_names import original_layout
from safetensors.torch import load_file, save_file

from trainer import tiny

PROMPTS = ["spider on a red background", "butterfly on a blue background"]
CLIP = {"clip_name1": "tiny_clip.safetensors", "clip_name2": "tiny_t5.safetensors", "type": "flux"}


@pytest.fixture(scope="module")
def models(server):
    tiny_files.write(server.base / "models")
    transformer = FluxTransformer2DModel.from_pretrained(tiny.FLUX, subfolder="transformer", torch_dtype=torch.float32)
    tensors = {name: tensor.contiguous() for name, tensor in original_layout(transformer).items()}
    save_file(tensors, server.base / "models/diffusion_models/tiny_original.safetensors")
    arrays = {name: (tensor.numpy(), None) for name, tensor in tensors.items()}
    write_gguf(server.base / "models/diffusion_models/tiny_original.gguf", arrays)


def graph(*, model: str = "tiny_original.safetensors", conditioning: bool = True, vae: bool = True, **changes) -> dict:
    prompts = "\n".join(PROMPTS)
    training = graphs.train(model=model, prompts=prompts, **{"name": "single", "group_size": 4, **changes})
    stock = {
        "clip": ("DualCLIPLoader", CLIP),
        "one": ("CLIPTextEncode", {"text": PROMPTS[0], "clip": ["clip", 0]}),
        "two": ("CLIPTextEncode", {"text": PROMPTS[1], "clip": ["clip", 0]}),
        "both": ("ConditioningCombine", {"conditioning_1": ["one", 0], "conditioning_2": ["two", 0]}),
        "vae": ("VAELoader", {"vae_name": "tiny_vae.safetensors"}),
    }
    if conditioning:
        training["2"]["inputs"]["conditioning"] = ["both", 0]
    if vae:
        training["5"]["inputs"]["vae"] = ["vae", 0]
    return training | {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in stock.items()}


@pytest.fixture(scope="module")
def schnell(tmp_path_factory) -> Path:
    """The embedded model as a file without guidance is taken: like FLUX.1-schnell, whose sigmas are not shifted."""
    folder = shutil.copytree(tiny.FLUX, tmp_path_factory.mktemp("models") / "schnell")
    settings = folder / "scheduler/scheduler_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"use_dynamic_shifting": False, "shift": 1.0}))
    return folder


def test_a_single_file_with_comfyuis_encoders_and_vae_trains_what_the_folder_trains(server, models, schnell):
    """The same weights by another way: the same LoRA, up to the VAE's rounding."""
    server.wait(server.queue(graph()))
    server.wait(server.queue(graph(folder=str(schnell), vae=False, name="folder")))
    single, folder = (load_file(server.base / f"models/loras/{name}.safetensors") for name in ("single", "folder"))
    assert single.keys() == folder.keys()
    moved = sum(t.abs().sum().item() for name, t in folder.items() if "lora_B" in name)
    apart = sum((t - single[name]).abs().sum().item() for name, t in folder.items() if "lora_B" in name)
    assert moved > 0
    assert apart < 0.1 * moved


def test_a_gguf_file_is_listed_and_trains_what_the_safetensors_file_trains(server, models):
    listed = server.get("/object_info")["NeighborGRPOLoadPolicy"]["input"]["required"]["model"][1]["options"]
    assert "tiny_original.gguf" in listed
    for kind in ("gguf", "safetensors"):
        server.wait(server.queue(graph(model=f"tiny_original.{kind}", name=kind, iterations=1)))
    found, expected = (load_file(server.base / f"models/loras/{kind}.safetensors") for kind in ("gguf", "safetensors"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_in_nvfp4_is_trained_and_one_that_is_not_read_is_told(server, models):
    folder = server.base / "models/diffusion_models"
    tensors = load_file(folder / "tiny_original.safetensors")
    write_quantised(folder / "tiny_nvfp4.safetensors", tensors, "nvfp4")
    server.wait(server.queue(graph(model="tiny_nvfp4.safetensors", name="nvfp4", iterations=1)))
    trained = load_file(server.base / "models/loras/nvfp4.safetensors")
    assert any(t.any() for name, t in trained.items() if "lora_B" in name)
    tensors["single_blocks.0.linear1.comfy_quant"] = text({"format": "svdquant_w4a4"})
    save_file(tensors, folder / "tiny_svdquant.safetensors")
    with pytest.raises(ExecutionError, match=r"keeps 'single_blocks.0.linear1.weight' as svdquant_w4a4 .*not read"):
        server.wait(server.queue(graph(model="tiny_svdquant.safetensors")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioning": False}, "single file without text encoders: connect CLIPTextEncode"),
        ({"vae": False}, "single file without a VAE: connect Load VAE"),
    ],
)
def test_what_a_single_file_lacks_is_told_with_the_remedy(server, models, changes, message):
    with pytest.raises(ExecutionError, match=message):
        server.wait(server.queue(graph(**changes)))


@pytest.mark.parametrize(
    ("width", "count", "message"),
    [(64, 2, "the conditioning is not for this FLUX"), (128, 3, "3 conditionings but 2 captions")],
)
def test_conditioning_of_another_kind_is_refused(server, models, width, count, message):
    wrong = graph()
    wrong["odd"] = {"class_type": "ProbeConditioning", "inputs": {"width": width, "count": count}}
    wrong["2"]["inputs"]["conditioning"] = ["odd", 0]
    with pytest.raises(ExecutionError, match=message):
        server.wait(server.queue(wrong))
