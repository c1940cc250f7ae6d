"""What a run's folder holds already, and whether a config may go on with it; without torch, to answer at once."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..errors import UserError, brief
from ..rewards import KINDS, check_prompts
from ..settings.config import SECTIONS, Config
from ..settings.described import Section, described
from ..settings.presets import Defaults, as_now, completed_by, former
from .checkpoint import load_state
from .identity import changed_files, identified, same_files

CHECKPOINTS = "checkpoint"
LORA = "lora.safetensors"


class RunError(UserError):
    """A run folder that cannot be started or continued, with the remedy in one line."""


def check_run(config: Config, resume: bool) -> None:
    """What can be known to be wrong with a run before anything is loaded.

    Raises:
        RewardError: a reward cannot score one of the prompts.
        RunError: the folder holds a run already (and not `resume`), or another one than `config` describes.
        CheckpointError: none of the folder's checkpoints is whole.
    """
    check_prompts((r.kind for r in config.rewards), (*config.prompts, *config.evaluation.prompts))
    folder = Path(config.run.folder)
    state = load_state(folder / CHECKPOINTS)
    if state is None:
        return
    if not resume:
        raise RunError(
            f"{folder} already holds a run of {state['iteration']} iterations: use --resume, or another folder"
        )
    new = json.loads(json.dumps(identified(config).to_dict()))
    changed = differences(completed(state["settings"]), completed(new))
    if changed:
        raise RunError(
            f"{folder} was trained with other settings ({'; '.join(changed)}): undo them, or use another folder"
        )


def defaults_of(folder: Path) -> Defaults:
    """What the folder's run had for what its config left open, where that is other than now; it needs no torch.

    Raises:
        CheckpointError: none of the folder's checkpoints is whole.
    """
    state = load_state(folder / CHECKPOINTS)
    return former(state["settings"]) if state else {}


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings with the defaults of what they lack: an older version did not know it, or it was left out."""
    sections = {name: _defaults(section) for name, section in SECTIONS.items()}
    return completed_by(as_now(stored), sections)


def _defaults(section: type[Section]) -> dict[str, Any]:
    """As JSON has them."""
    return json.loads(json.dumps({f.name: f.default for f in fields(section) if f.default is not MISSING}))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two settings trees, but for what may change, as 'grpo.clip was 0.2, is 0.3'.

    A path is another if what it holds is, see `identity`.
    """
    free = may_change(new) | same_files(old, new) | {"holds"}
    others = [f"what {name} holds is not what it was" for name in changed_files(old, new)]
    return [*_differences(old, new, "", free), *others]


def may_change(settings: Mapping[str, Any]) -> set[str]:
    """Names of what a run can go on with another value of, as 'run.iterations' or 'rewards.0.options.url'."""
    names = {
        f"{name}.{f.name}"
        for name, section in SECTIONS.items()
        for f in fields(section)
        if described(section, f.name).may_change
    }
    for i, reward in enumerate(settings.get("rewards", ())):
        kind = KINDS.get(reward["kind"])
        names |= {f"rewards.{i}.options.{option}" for option in (kind.may_change if kind else ())}
    return names


def _differences(old: object, new: object, name: str, free: set[str]) -> Iterator[str]:
    if name in free or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."), free)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(a, b, f"{name}.{i}", free)
    else:
        yield f"{name} was {brief(old)}, is {brief(new)}"
