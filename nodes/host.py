"""What the nodes need from ComfyUI: its device, its folders, its progress bar, its Cancel button."""

import functools
import logging
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy import model_management
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..trainer.device import free_memory, is_out_of_memory, pick_device, release
from ..trainer.engine.micro_batch import OutOfMemory
from ..trainer.errors import ConfigError, Stopped, UserError
from ..trainer.events import Drawn, Event, Halved, IterationDone, LetGo, SelfTested, Skipped, Started, Waiting
from ..trainer.faults import told
from ..trainer.pictures.convert import to_pictures
from ..trainer.planning.advice import lower
from ..trainer.settings.config import Config

PREVIEW_EDGE = 512  # pixels
EVERYTHING = 1e30  # bytes, as ComfyUI itself asks for all of a device


def device() -> str:
    """ComfyUI's device; the CPU if nothing can be trained on that, and the log says why."""
    return _usable(str(model_management.get_torch_device()))


@functools.cache  # so that the log says it once
def _usable(device: str) -> str:
    try:
        return pick_device(device)
    except ConfigError as error:
        logging.warning(f"Neighbor GRPO trains on the CPU: {error}")
        return "cpu"


@contextmanager
def training_mode() -> Iterator[None]:
    """ComfyUI runs nodes in inference mode, whose tensors can never take part in a backward pass."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def free_models(device: str | torch.device, keep: ModelPatcher | None = None) -> None:
    """Ask ComfyUI to take all models but `keep` off `device`, and off the one that it uses: training needs the room."""
    kept = [model_management.LoadedModel(keep)] if keep else []  # one for ComfyUI's list is as good as another
    for one in {torch.device(device), model_management.get_torch_device()}:
        model_management.free_memory(EVERYTHING, one, keep_loaded=kept)
    model_management.soft_empty_cache()
    release(device)


def left_free(device: str) -> int:
    """Bytes of `device` that model.memory = "auto" does not use: those of --reserve-vram, or ComfyUI's own reserve.

    Somebody who starts ComfyUI with --lowvram wants more: half of the device stays free, with --novram all of it.
    """
    states, reserve = model_management.VRAMState, int(model_management.extra_reserved_memory())
    shares = {states.LOW_VRAM: 1 / 2, states.NO_VRAM: 1}
    share = shares.get(model_management.vram_state, 0)
    return max(reserve, int(share * model_management.get_total_memory(torch.device(device)))) if share else reserve


def room(device: str) -> int | None:
    """Bytes of `device` that a training may still take; None if it does not count them."""
    free = free_memory(device)
    return None if free is None else free - left_free(device)


def stop_if_cancelled() -> None:
    """What a model call of ours asks before it begins. The flag stays up until `raise_if_cancelled`."""
    if model_management.processing_interrupted():
        raise Stopped


def raise_if_cancelled() -> None:
    """End the node as ComfyUI ends a cancelled one."""
    model_management.throw_exception_if_processing_interrupted()


@contextmanager
def memory_advice(config: Config) -> Iterator[None]:
    """Running out of memory becomes one sentence with what to lower."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # what was computed so far goes with their variables
        free_models(config.model.device)
        what = f"{config.model.device} is out of memory"
        if isinstance(error, OutOfMemory):
            what, config = str(error), replace(config, run=replace(config.run, micro_batch=1, rollout_batch=1))
        raise UserError(f"{what}: set {lower(config)}. What was saved is kept") from error


def explained(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, of which a disk's and a file's faults are told in one line with the remedy."""
    inner = node.execute.__func__

    @functools.wraps(inner)
    def execute(cls: type[io.ComfyNode], *args: Any, **inputs: Any) -> io.NodeOutput:
        with told():
            return inner(cls, *args, **inputs)

    node.execute = classmethod(execute)
    return node


def runs_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / "neighbor_grpo"


def served_to() -> tuple[str, str | None]:
    """The addresses that ComfyUI listens on, with commas between them, and the foreign origin that it answers."""
    return args.listen, args.enable_cors_header


def loras_folder() -> Path:
    return Path(folder_paths.get_folder_paths("loras")[0])


class Progress:
    """A listener: the node's progress bar, a candidate as its preview, what events say and time left in the log.

    The preview is the first candidate until the iteration is done, and then the one with the highest advantage.
    """

    def __init__(self, preview_every: int):
        self.preview_every = preview_every
        self.bar: ProgressBar  # from the run's start
        self.started = (0.0, 0)  # time, iteration
        self.total = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.bar, self.total = ProgressBar(event.iterations), event.iterations
                self.started = (time.monotonic(), event.iteration)
                self.bar.update_absolute(event.iteration)
            case Drawn():
                self.show(event, event.iteration, candidate=0)
            case IterationDone():
                self.show(event, event.iteration + 1, candidate=int(event.advantages.argmax()))
                self.log(event)
        if sentence := str(event):
            logging.log(level(event), f"Neighbor GRPO: iteration {event.iteration}: {sentence}")

    def show(self, event: Drawn | IterationDone, done: int, candidate: int) -> None:
        """The iterations done, and a candidate of every so many iterations."""
        preview = None
        if self.preview_every and event.iteration % self.preview_every == 0:
            preview = ("JPEG", next(to_pictures(event.images[candidate : candidate + 1])), PREVIEW_EDGE)
        if not model_management.processing_interrupted():  # or the bar raises, and the run would not end in good order
            self.bar.update_absolute(done, preview=preview)

    def log(self, event: IterationDone) -> None:
        began, first = self.started
        done = event.iteration + 1
        left = (time.monotonic() - began) / (done - first) * (self.total - done)
        rewards = ", ".join(f"{name} {scores.mean():.4f}" for name, scores in event.scores.items())
        logging.info(f"Neighbor GRPO: {done}/{self.total}, {rewards}, {clock(left)} left")


def level(event: Event) -> int:
    """How urgent what an event says is."""
    match event:
        case Skipped() | Halved() | LetGo() | Waiting():
            return logging.WARNING
        case SelfTested():
            return logging.WARNING if event.cause else logging.INFO
    return logging.INFO


def readable(lines: Iterable[str]) -> str:
    """Lines for ComfyUI's Preview as Text, which takes them for Markdown: indented ones stay lines, in columns."""
    return "\n".join(f"    {line}" for line in lines)


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
