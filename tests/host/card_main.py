"""For tests only: ComfyUI's main.py in a process whose torch device is the card made of the CPU (tests/card).

usage: python card_main.py FOLDER_OF_COMFYUI [arguments of its main.py]

ComfyUI knows the devices it can run on, so here it is told of another one; every tensor of its loaders, samplers, VAE
and LoRAs, and of the nodes under test, is then the card's.
"""

import logging
import os
import runpy
import sys
from pathlib import Path

CARD = Path(__file__).resolve().parents[1] / "card"

comfyui, *arguments = sys.argv[1:]
main = os.path.join(comfyui, "main.py")
sys.argv = [main, "--cpu", *arguments]
sys.path[0] = comfyui  # in place of this folder, some of whose files have names of ComfyUI's

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
sys.path.append(str(CARD))
import card  # noqa: E402
import comfy.model_management as management  # noqa: E402
import torch  # noqa: E402

# a tensor of the card is of a class of its own: one that moves cannot take the other's data, but change places with it
torch.__future__.set_swap_module_params_on_conversion(True)
memory = card.memory
memory.limit = 2**33  # bytes


total_of_host, free_of_host = management.get_total_memory, management.get_free_memory


def is_host(dev) -> bool:
    return dev is not None and torch.device(dev).type == "cpu"


def total(dev=None, torch_total_too=False):
    if is_host(dev):
        return total_of_host(dev, torch_total_too)
    return (memory.size, memory.reserved) if torch_total_too else memory.size


def free(dev=None, torch_free_too=False):
    if is_host(dev):
        return free_of_host(dev, torch_free_too)
    kept = memory.reserved - memory.live
    return (memory.free + kept, kept) if torch_free_too else memory.free + kept


management.get_torch_device = lambda: card.CARD
management.get_torch_device_name = str
management.get_total_memory, management.get_free_memory = total, free
management.soft_empty_cache = lambda force=False: card.module.empty_cache()
logging.getLogger().handlers.clear()  # main.py sets its own, and so far each line would come twice
runpy.run_path(main, run_name="__main__")
