"""Stage 8a: saving and resuming. A checkpoint is a folder that appears whole or not at all.

`checkpoint/000040/` holds the state after 40 iterations: lora, average and optimiser as safetensors, and state.json
with their digests and its own. One that is damaged is passed over for the one before.
Every random draw of a run derives from its seed and the iteration's number (see `noise.derive_seed`), and so does the
place in the prompts: these two numbers are the whole state of the generators and the prompt cursor.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UserError, brief
from ..faults import in_words, is_fault
from ..files import PARTIAL, remove, replace, unused, usual_mode
from ..models.files.safe_file import read_file

if TYPE_CHECKING:  # whether a run may go on is checked without torch
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

FORMAT = 1  # of what `save` writes; older versions wrote none, and no digests
STATE = "state.json"
TENSORS = ("lora", "average", "optimizer")
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
KEPT = 2  # whole checkpoints; the older one serves if the newer one is damaged on disk
BLOCK = 2**20  # bytes read at once
PLACE = re.compile(r"(\d+)(?:-\d+)?")  # the name of a checkpoint's folder

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
    """Write `folder/<iteration>` aside, flush it to disk, rename it; only then remove the oldest ones.

    What cannot be removed is left, and tried again the next time.

    Raises:
        OSError, SafetensorError: it cannot be written; what was there before is still there.
    """
    name = f"{checkpoint.iteration:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    partial = unused(folder / f"{name}{PARTIAL}")
    try:
        _write(partial, checkpoint)
        target = folder / name
        if target.exists() and _is_whole(target):  # a resumed run that was stopped at once: the same state again
            return target
        target = unused(target)  # a damaged one that cannot be removed keeps its name
        replace(partial, target)
    finally:
        remove(partial)
    _flush(folder)
    for old in [*checkpoints(folder)[:-KEPT], *folder.glob(f"*{PARTIAL}*")]:
        remove(old)
    return target


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for name in TENSORS:
        tensors = {k: v.detach().cpu().contiguous() for k, v in getattr(checkpoint, name).items()}
        with usual_mode(folder / _file(name)):
            save_file(tensors, folder / _file(name))
    state = {
        "format": FORMAT,
        "iteration": checkpoint.iteration,
        "counters": dict(checkpoint.counters),
        "settings": checkpoint.settings,
        "changes": list(checkpoint.changes),
        "gradients": dict(checkpoint.gradients),
        "bytes": {name: (folder / _file(name)).stat().st_size for name in TENSORS},
        "sha256": {name: _digest(folder / _file(name)) for name in TENSORS},
    }
    state = json.loads(json.dumps(state))  # as it will be read: a digest is of that, in this version and in later ones
    text = json.dumps({**state, "digest": _digest_of(state)}, indent=1)
    (folder / STATE).write_text(text, "utf-8")
    for path in folder.iterdir():
        _flush(path)


def load(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, or None if there is none at all. A warning names those passed over.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole, or the newest is of a newer version.
    """
    found, damaged = _newest(folder, _read)
    if found:
        for line in damaged:
            log.warning("checkpoint %s; going on from the one after %d iterations", line, found.iteration)
    return found


def load_state(folder: Path) -> dict[str, Any] | None:
    """What `save` wrote into its state.json: the same as `load`, but for the tensors. It needs no torch."""
    return _newest(folder, _state)[0]


def _newest(folder: Path, read: Callable[[Path], T]) -> tuple[T | None, list[str]]:
    """What `read` makes of the newest that it can, and what is wrong with those after it."""
    errors: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return read(path), errors
        except UNREADABLE as error:
            words = in_words(error) if is_fault(error) and not isinstance(error, UnicodeError) else brief(str(error))
            errors.append(f"{path} is damaged ({words})")
    if errors:
        raise CheckpointError(f"no checkpoint in {folder} can be read ({'; '.join(errors)}): start the run anew")
    return None, errors


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first: `000040`, or `000040-2` beside a damaged one that could not be removed."""
    if not folder.is_dir():
        return []
    found = [(PLACE.fullmatch(p.name), p) for p in folder.iterdir()]
    return [p for _, p in sorted((int(m[1]), p) for m, p in found if m and p.is_dir())]


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except UNREADABLE:
        return False
    return True


def _state(path: Path) -> dict[str, Any]:
    """Of a checkpoint whose files have their sizes, and whose state.json its digest if it was given one."""
    state = json.loads((path / STATE).read_text("utf-8"))
    digest, version = state.pop("digest", None), state.get("format", 0)
    if digest is None and version:
        raise ValueError(f"{STATE} has no digest")
    if digest not in (None, _digest_of(state)):
        raise ValueError(f"{STATE} has changed since it was written")
    if version > FORMAT:
        raise CheckpointError(
            f"{path} was written by a newer version (its format is {version}, this one reads up to {FORMAT}): "
            "update this project to go on with the run"
        )
    for name, size in state["bytes"].items():
        found = (path / _file(name)).stat().st_size
        if found != size:
            raise ValueError(f"{_file(name)} has {found} bytes of {size}")
    return state


def _read(path: Path) -> Checkpoint:
    state = _state(path)
    for name, digest in state.get("sha256", {}).items():
        if _digest(path / _file(name)) != digest:
            raise ValueError(f"{_file(name)} has changed since it was written")
    tensors = {name: read_file(path / _file(name))[0] for name in TENSORS}
    return Checkpoint(
        state["iteration"],
        **tensors,
        counters=state["counters"],
        settings=state["settings"],
        changes=state.get("changes", ()),
        gradients=state.get("gradients", {}),
    )


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def _digest_of(state: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, however it is laid out as JSON."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _file(name: str) -> str:
    return f"{name}.safetensors"


def _flush(path: Path) -> None:
    """fsync a file or folder. Windows, whose renames are journalled, cannot open folders, nor can some drives."""
    of_folder = path.is_dir()
    with suppress(OSError) if of_folder else nullcontext():
        descriptor = os.open(path, os.O_RDONLY if of_folder else os.O_RDWR)
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
