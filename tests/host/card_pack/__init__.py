"""TEST-ONLY pack for card_main.py: what is on the card, what ComfyUI has loaded where, and where it is in a graph."""

import gc
from pathlib import Path

import card
import comfy.model_management as management
import folder_paths
import torch
from aiohttp import web
from comfy.model_patcher import ModelPatcher
from comfy_execution.progress import NodeState, get_progress_state
from safetensors.torch import save_file
from server import PromptServer

routes = PromptServer.instance.routes


class LoadModel:
    """Has ComfyUI load a model of its own, a megabyte, on a device, on the way of some scores."""

    CATEGORY, FUNCTION, RETURN_TYPES = "card", "run", ("NEIGHBOR_GRPO_SCORES",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"scores": ("NEIGHBOR_GRPO_SCORES",), "device": ("STRING", {})}}

    def run(self, scores, device):
        with torch.inference_mode(False):  # a tensor made in it cannot change places with another
            model = torch.nn.Linear(512, 512, bias=False)
        self.patcher = ModelPatcher(model, load_device=torch.device(device), offload_device=torch.device("cpu"))
        management.load_models_gpu([self.patcher])
        return (scores,)


class WriteImages:
    """Pictures as they are, not rounded to 8 bits: output/images.safetensors."""

    CATEGORY, FUNCTION, OUTPUT_NODE, RETURN_TYPES = "card", "run", True, ()

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"images": ("IMAGE",)}}

    def run(self, images):
        pixels = images.cpu().movedim(-1, 1).contiguous()  # [N, 3, H, W]
        save_file({"images": pixels}, Path(folder_paths.get_output_directory()) / "images.safetensors")
        return {}


NODE_CLASS_MAPPINGS = {"CardLoadModel": LoadModel, "CardWriteImages": WriteImages}


@routes.get("/card/state")
async def state(request: web.Request) -> web.Response:
    """`nodes`: the ids of those that run; `loaded`: what ComfyUI can send away; `live` and
    `peak`: bytes; `taken`: allocations so far.

    With ?collected=1 after Python's garbage is gone.
    """
    if request.query.get("collected"):
        gc.collect()
    memory = card.memory
    nodes = [name for name, progress in get_progress_state().nodes.items() if progress["state"] == NodeState.Running]
    loaded = [f"{type(m.model.model).__name__} on {m.device}" for m in management.current_loaded_models]
    found = {"live": memory.live, "peak": memory.peak, "taken": memory.taken, "races": len(card.races)}
    return web.json_response({"nodes": nodes, "loaded": loaded, **found})


@routes.post("/card/limit")
async def limit(request: web.Request) -> web.Response:
    """The card has `total` bytes from now on, or `more` than are in use."""
    size = await request.json()
    card.memory.give_cache_back()
    card.memory.limit = size.get("total") or card.memory.live + size["more"]
    return web.json_response({})


@routes.post("/card/peak")
async def peak(request: web.Request) -> web.Response:
    """The peak is what is there now."""
    gc.collect()
    card.memory.restart_peak()
    return web.json_response({})


@routes.post("/card/told")
async def told(request: web.Request) -> web.Response:
    """As if ComfyUI had been started with --reserve-vram (`reserve`, bytes) and --lowvram or --novram (`state`)."""
    wish = await request.json()
    management.EXTRA_RESERVED_VRAM = wish["reserve"]
    management.vram_state = management.VRAMState[wish["state"]]
    return web.json_response({})
