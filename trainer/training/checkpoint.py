"""Stage 8a: saving and resuming. A checkpoint is a folder that appears whole or not at all.

`checkpoint/000040/` holds the state after 40 iterations: lora, average and optimiser as safetensors, and state.json.
Every random draw of a run derives from its seed and the iteration's number (see `noise.derive_seed`), and so does the
place in the prompts: these two numbers are the whole state of the generators and the prompt cursor.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UserError
from ..models.files.safe_file import read_file

if TYPE_CHECKING:  # whether a run may go on is checked without torch
    import torch
    from torch import Tensor

STATE = "state.json"
TENSORS = ("lora", "average", "optimizer")
UNREADABLE = (OSError, ValueError, KeyError)
KEPT = 2  # whole checkpoints; the older one serves if the newer one is damaged on disk

T = TypeVar("T")


class CheckpointError(UserError):
    """A checkpoint that cannot be read or does not fit."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to go on after `iteration` iterations."""

    iteration: int
    lora: Mapping[str, "Tensor"]
    average: Mapping[str, "Tensor"]  # EMA of the LoRA
    optimizer: Mapping[str, "Tensor"]  # see `optimizer_tensors`
    counters: Mapping[str, int]
    settings: Mapping[str, Any]
    changes: Sequence[Mapping[str, Any]] = ()  # that a person made during the run, see `events.Change`
    gradients: Mapping[str, Any] = field(default_factory=dict)  # see `update.GradientHistory`


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/<iteration>` aside, flush it to disk, rename it; only then remove the oldest ones."""
    from safetensors.torch import save_file

    target = folder / f"{checkpoint.iteration:06d}"
    partial = folder / f"{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in TENSORS:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in getattr(checkpoint, name).items()}, partial / _file(name)
        )
    state = {
        "iteration": checkpoint.iteration,
        "counters": dict(checkpoint.counters),
        "settings": checkpoint.settings,
        "changes": list(checkpoint.changes),
        "gradients": dict(checkpoint.gradients),
        "bytes": {name: (partial / _file(name)).stat().st_size for name in TENSORS},
    }
    (partial / STATE).write_text(json.dumps(state, indent=1), "utf-8")
    for path in partial.iterdir():
        _flush(path)
    if target.exists() and _is_whole(target):  # a resumed run that was stopped at once: the same state again
        shutil.rmtree(partial)
        return target
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    _flush(folder)
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def load(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, or None if there is none at all.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole.
    """
    return _newest(folder, _read)


def load_state(folder: Path) -> dict[str, Any] | None:
    """What `save` wrote into its state.json: the same as `load`, but for the tensors. It needs no torch."""
    return _newest(folder, _state)


def _newest(folder: Path, read: Callable[[Path], T]) -> T | None:
    errors = []
    for path in reversed(checkpoints(folder)):
        try:
            return read(path)
        except UNREADABLE as error:
            errors.append(f"{path.name}: {error}")
    if errors:
        raise CheckpointError(f"no checkpoint in {folder} can be read ({'; '.join(errors)}): start the run anew")
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except UNREADABLE:
        return False
    return True


def _state(path: Path) -> dict[str, Any]:
    state = json.loads((path / STATE).read_text("utf-8"))
    for name, size in state["bytes"].items():
        found = (path / _file(name)).stat().st_size
        if found != size:
            raise ValueError(f"{_file(name)} has {found} bytes of {size}")
    return state


def _read(path: Path) -> Checkpoint:
    state = _state(path)
    tensors = {name: read_file(path / _file(name))[0] for name in TENSORS}
    return Checkpoint(
        state["iteration"],
        **tensors,
        counters=state["counters"],
        settings=state["settings"],
        changes=state.get("changes", ()),
        gradients=state.get("gradients", {}),
    )


def _file(name: str) -> str:
    return f"{name}.safetensors"


def _flush(path: Path) -> None:
    """fsync a file or folder. Windows cannot open folders; its renames are journalled."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_tensors(optimizer: "torch.optim.Optimizer", parameters: Mapping[str, "Tensor"]) -> "dict[str, Tensor]":
    """The optimiser's state by the names of the parameters: `<parameter>/<exp_avg, exp_avg_sq or step>`."""
    return {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: "torch.optim.Optimizer", parameters: Mapping[str, "Tensor"], tensors: Mapping[str, "Tensor"]
) -> None:
    """Put copies of `optimizer_tensors` into a new optimiser."""
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        # AdamW keeps its step count on the CPU
        device = "cpu" if key == "step" else parameters[name].device
        optimizer.state[parameters[name]][key] = value.to(device, copy=True)
