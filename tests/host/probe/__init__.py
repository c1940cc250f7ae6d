"""TEST-ONLY pack: what ComfyUI's process has imported, how many objects of a class live in it, what a wire holds."""

import ctypes
import dataclasses
import gc
import itertools
import sys
from pathlib import Path

import folder_paths
import psutil
import torch
from aiohttp import web
from safetensors.torch import save_file
from server import PromptServer


class WritePrompts:
    """What the prompts on a PROMPTS wire were encoded to, as output/<name>.safetensors."""

    CATEGORY, FUNCTION, OUTPUT_NODE, RETURN_TYPES = "probe", "run", True, ()

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"prompts": ("NEIGHBOR_GRPO_PROMPTS",), "name": ("STRING", {})}}

    def run(self, prompts, name):
        tensors = {name: tensor.contiguous() for name, tensor in prompts.conditioning.tensors.items()}
        save_file(tensors, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")
        return {}


class Floats:
    """The mean of each picture, a list of numbers."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_IS_LIST = "probe", "run", ("FLOAT",), (True,)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"images": ("IMAGE",)}}

    def run(self, images):
        return (images.mean((1, 2, 3)).tolist(),)


class Brighter:
    """Pictures that are none: brighter than white."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"images": ("IMAGE",)}}

    def run(self, images):
        return (images + 1.5,)


class OutOfMemory:
    """A reward that runs out of memory from its second call on."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("NEIGHBOR_GRPO_REWARD",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"reward": ("NEIGHBOR_GRPO_REWARD",)}}

    def run(self, reward):
        (named,) = reward
        calls = itertools.count()

        class Fails:
            def score(self, images, prompts):
                if next(calls) > 0:
                    raise torch.OutOfMemoryError("injected")
                return named.reward.score(images, prompts)

        return ((dataclasses.replace(named, reward=Fails()),),)


class Conditioning:
    """Prompts of a model that nobody has."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"width": ("INT", {}), "count": ("INT", {})}}

    def run(self, width, count):
        return ([[torch.zeros(1, 8, width), {"pooled_output": torch.zeros(1, width)}]] * count,)


class Patches:
    """How many weights of a MODEL a LoRA changes."""

    CATEGORY, FUNCTION, OUTPUT_NODE, RETURN_TYPES = "probe", "run", True, ()

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",)}}

    def run(self, model):
        return {"ui": {"text": (str(len(model.patches)),)}}


NODES = (WritePrompts, Floats, Brighter, OutOfMemory, Conditioning, Patches)
NODE_CLASS_MAPPINGS = {f"Probe{node.__name__}": node for node in NODES}


@PromptServer.instance.routes.get("/probe/modules")
async def modules(_request: web.Request) -> web.Response:
    return web.json_response(sorted(sys.modules))


@PromptServer.instance.routes.get("/probe/objects/{name}")
async def objects(request: web.Request) -> web.Response:
    """How many objects of the class module.name are alive, and this process's resident memory in bytes."""
    module, _, name = request.match_info["name"].rpartition(".")  # a bare name finds inspect.Parameter as well
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what is free but not given back says nothing of a leak
    kinds = [type(each) for each in gc.get_objects()]
    count = sum(kind.__name__ == name and kind.__module__ == module for kind in kinds)
    return web.json_response({"count": count, "resident": psutil.Process().memory_info().rss})
