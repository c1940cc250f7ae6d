"""The pack inside a real ComfyUI: it loads, and ComfyUI's own nodes draw what diffusers draws."""

import re
import subprocess
import sys
import time

import desk
import numpy as np
import pytest
import tiny_files
import torch
from comfy_install import ROOT
from comfy_server import DIRECT, PACK, ComfyServer, ExecutionError, ExecutionInterrupted
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image

from trainer import tiny

MAIN_JS = "/extensions/neighbor-grpo/main.js"
PROMPT = "a red apple on a white background"
STEPS = 4
SEED = 7


def graph(**sampler) -> dict:
    """ComfyUI's own nodes around the tiny files."""
    clip = {"clip_name1": "tiny_clip.safetensors", "clip_name2": "tiny_t5.safetensors", "type": "flux"}
    euler = {"seed": SEED, "steps": STEPS, "cfg": 1, "sampler_name": "euler", "scheduler": "simple", "denoise": 1}
    links = {"model": ["unet", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
    nodes = {
        "unet": ("UNETLoader", {"unet_name": "tiny_flux.safetensors", "weight_dtype": "default"}),
        "clip": ("DualCLIPLoader", clip),
        "vae": ("VAELoader", {"vae_name": "tiny_vae.safetensors"}),
        "text": ("CLIPTextEncode", {"text": PROMPT, "clip": ["clip", 0]}),
        "latent": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampler": ("KSampler", euler | links | sampler),
        "picture": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["vae", 0]}),
        "save": ("SaveImage", {"images": ["picture", 0], "filename_prefix": "tiny"}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


@pytest.fixture(scope="module")
def models(server):
    tiny_files.write(server.base / "models")


def ours(log: str) -> str:
    """Without the checkout's own path, which may be called like the pack."""
    return log.replace(str(ROOT), "")


def test_the_pack_loads_and_the_log_mentions_it_once(server):
    mentions = [
        line for line in ours(server.start_log).splitlines() if re.search("neighbor.?grpo", line, re.IGNORECASE)
    ]
    assert len(mentions) == 1, mentions
    assert re.fullmatch(r" *\d+\.\d seconds: \S+/custom_nodes/neighbor-grpo", mentions[0])


def test_comfyui_serves_main_js_and_no_other_script_of_ours(server):
    assert [path for path in server.get("/extensions") if "neighbor" in path] == [MAIN_JS]
    with DIRECT.open(server.url + MAIN_JS) as reply:
        assert reply.headers.get_content_type() in ("text/javascript", "application/javascript")


def test_at_start_the_pack_imports_nothing_heavy(server, bare_server, capsys):
    added = {name.split(".")[0] for name in server.start_modules - set(bare_server.get("/probe/modules"))}
    with capsys.disabled():
        print(f"\nstart: {server.startup_seconds:.1f} s with the pack, {bare_server.startup_seconds:.1f} s without")
    assert any(name.endswith("neighbor-grpo") for name in added)  # the comparison sees the pack
    assert not added & {"diffusers", "peft", "transformers", "accelerate", "torch", "torchvision"}


def test_an_old_comfyui_gets_one_line_that_names_the_minimum(comfyui, tmp_path):
    old = tmp_path / "ComfyUI"
    old.mkdir()
    for entry in comfyui.iterdir():
        (old / entry.name).symlink_to(entry)
    main = (comfyui / "main.py").read_text("utf-8")  # a link would lead Python back to the new one
    for name, text in {"main.py": main, "comfyui_version.py": '__version__ = "0.3.74"'}.items():
        (old / name).unlink()
        (old / name).write_text(text, "utf-8")
    with ComfyServer(old, PACK) as server:
        log = ours(server.log())
    assert log.count("Neighbor GRPO needs ComfyUI 0.3.75 or newer, this is 0.3.74: update ComfyUI") == 1
    assert not re.search('File ".*/neighbor-grpo/', log)  # no stack trace


def test_without_comfyui_the_pack_imports_with_one_line(tmp_path):
    link = tmp_path / "pack"
    link.symlink_to(ROOT)
    done = subprocess.run([sys.executable, "-c", "import pack"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "ERROR:root:Neighbor GRPO needs ComfyUI 0.3.75 or newer: update ComfyUI\n"


def test_the_stock_nodes_draw_what_diffusers_draws(server, models):
    entry = server.wait(server.queue(graph()))
    saved = entry["outputs"]["save"]["images"][0]["filename"]
    drawn = np.asarray(Image.open(server.base / "output" / saved)) / 255  # [64, 64, 3]

    pipeline = FluxPipeline.from_pretrained(tiny.FLUX, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0))
    noise = torch.randn([1, 16, 8, 8], generator=torch.manual_seed(SEED))
    expected = pipeline(
        PROMPT,
        height=64,
        width=64,
        num_inference_steps=STEPS,
        sigmas=[1 - i / STEPS for i in range(STEPS)],
        latents=pipeline._pack_latents(noise, 1, 16, 8, 8),
        max_sequence_length=tiny.TEXT_TOKENS,
        output_type="np",
    ).images[0]
    assert expected.std() > 0.05  # a picture, not a plain colour
    np.testing.assert_allclose(drawn, expected, atol=1.5 / 255)  # stored in steps of 1 / 255


def test_a_refused_prompt_raises_with_every_complaint(server, models):
    wrong = graph(steps=-1)
    wrong["text"]["inputs"]["clip"] = ["unet", 0]
    with pytest.raises(ExecutionError) as refused:
        server.queue(wrong)
    assert "KSampler (node sampler): Value -1 smaller than min" in str(refused.value)
    assert "CLIPTextEncode (node text): Return type mismatch" in str(refused.value)


def test_a_failing_node_raises_with_its_own_message(server, models):
    (server.base / "models/vae/broken.safetensors").write_bytes(b"nothing")
    broken = graph()
    broken["vae"]["inputs"]["vae_name"] = "broken.safetensors"
    with pytest.raises(ExecutionError, match=r"^VAELoader \(node vae\): .*SafetensorError: .*header too small$"):
        server.wait(server.queue(broken))


def test_interrupt_cancels_a_prompt_in_the_middle_of_its_steps(server, models):
    steps = 10_000
    prompt = server.queue(graph(steps=steps))
    while f"/{steps} [" not in server.log():  # its progress bar
        assert not server.get(f"/history/{prompt}")  # it has not ended
        time.sleep(0.1)
    server.interrupt()
    with pytest.raises(ExecutionInterrupted, match=r"^KSampler"):
        server.wait(prompt)


@pytest.mark.on_newest_too
def test_the_page_loads_with_our_extension_and_a_clean_console(page, console):
    assert page.evaluate("window.app.extensions.some(extension => extension.name === 'NeighborGRPO')")
    page.evaluate(desk.STILL)  # what was said while it loaded is drawn
    assert page.locator(desk.TOAST).all_inner_texts() == console == []
