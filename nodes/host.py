"""What the nodes need from ComfyUI: its device, its folders, its progress bar, its Cancel button."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import folder_paths
import torch
from comfy import model_management
from comfy.utils import ProgressBar

from ..trainer.config import Config
from ..trainer.errors import Stopped, UserError
from ..trainer.events import (
    Changed,
    Evaluated,
    Event,
    Halved,
    IterationDone,
    Paused,
    Resumed,
    SelfTested,
    Skipped,
    Started,
    Unpaused,
    Waiting,
)
from ..trainer.micro_batch import OutOfMemory
from ..trainer.planning.advice import lower
from ..trainer.tiles import to_pictures

PREVIEW_EDGE = 512  # pixels


def device() -> str:
    return str(model_management.get_torch_device())


def devices() -> list[str]:
    """Every device that torch could train on here."""
    return [*(f"cuda:{n}" for n in range(torch.cuda.device_count())), "cpu"]


@contextmanager
def training_mode() -> Iterator[None]:
    """ComfyUI runs nodes in inference mode, whose tensors can never take part in a backward pass."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def free_models() -> None:
    """Ask ComfyUI to take its own models off the device: training needs the room."""
    model_management.unload_all_models()
    model_management.soft_empty_cache()


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
    except (torch.cuda.OutOfMemoryError, OutOfMemory) as error:
        free_models()
        what = f"{config.model.device} is out of memory"
        if isinstance(error, OutOfMemory):
            what, config = error, replace(config, run=replace(config.run, micro_batch=1))
        raise UserError(f"{what}: set {lower(config)}. What was saved is kept") from error


def runs_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / "neighbor_grpo"


def loras_folder() -> Path:
    return Path(folder_paths.get_folder_paths("loras")[0])


class Progress:
    """A listener: the node's progress bar, the best candidate as its preview, time left in the log."""

    def __init__(self, preview_every: int):
        self.preview_every = preview_every
        self.bar: ProgressBar | None = None
        self.started = (0.0, 0)  # time, iteration
        self.total = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.bar, self.total = ProgressBar(event.iterations), event.iterations
                self.started = (time.monotonic(), event.iteration)
                self.bar.update_absolute(event.iteration)
            case IterationDone():
                self.bar.update_absolute(event.iteration + 1, preview=self.preview(event))
                self.log(event)
            case SelfTested():
                logging.log(logging.WARNING if event.cause else logging.INFO, f"{self.at(event)}: {event}")
            case Skipped():
                logging.warning(f"{self.at(event)}: update skipped, {event.reason}")
            case Halved():
                logging.warning(f"{self.at(event)}: {event}")
            case Waiting():
                logging.warning(f"{self.at(event)}: saved, and waiting: {event.reason}")
            case Paused():
                logging.info(f"{self.at(event)}: saved, and paused")
            case Resumed() | Unpaused():
                logging.info(f"{self.at(event)}: went on after {event.seconds:.0f} s")
            case Changed():
                logging.info(f"{self.at(event)}: changed: {event.change}")
            case Evaluated():
                logging.info(f"{self.at(event)}: {len(event.prompts)} pictures of the evaluation prompts")

    @staticmethod
    def at(event: Event) -> str:
        return f"Neighbor GRPO: iteration {event.iteration}"

    def preview(self, event: IterationDone) -> tuple | None:
        """The candidate with the highest advantage, every few iterations."""
        if not self.preview_every or event.iteration % self.preview_every:
            return None
        best = int(event.advantages.argmax())
        return ("JPEG", next(to_pictures(event.images[best : best + 1])), PREVIEW_EDGE)

    def log(self, event: IterationDone) -> None:
        began, first = self.started
        done = event.iteration + 1
        left = (time.monotonic() - began) / (done - first) * (self.total - done)
        rewards = ", ".join(f"{name} {scores.mean():.4f}" for name, scores in event.scores.items())
        logging.info(f"Neighbor GRPO: {done}/{self.total}, {rewards}, {clock(left)} left")


def readable(lines: Iterable[str]) -> str:
    """Lines for ComfyUI's Preview as Text, which takes them for Markdown: indented ones stay lines, in columns."""
    return "\n".join(f"    {line}" for line in lines)


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
