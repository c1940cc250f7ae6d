"""What a run's folder holds already, and whether a config may go on with it; without torch, to answer at once."""

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..rewards import check_prompts
from ..settings.config import Config, ModelSettings, RewardSettings
from .checkpoint import load_state

CHECKPOINTS = "checkpoint"
LORA = "lora.safetensors"
# settings that may change when a run goes on: they do not alter what an iteration computes
FREE = ("folder", "iterations", "save_every", "tiles_every", "offload_rewards", "base_every", "stop_on")
# how the model's weights are kept may change: a run goes on on another machine, with other memory
KEPT = ("memory", "offload", "checkpointing")
APART = ("evaluation",)  # whole sections like that
# how a reward is reached may change too: a server moves
REACH = ("url", "token_env", "timeout", "retries")


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
    changed = differences(completed(state["settings"]), json.loads(json.dumps(config.to_dict())))
    if changed:
        raise RunError(
            f"{folder} was trained with other settings ({'; '.join(changed)}): undo them, or use another folder"
        )


def completed(stored: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older version stored, with the defaults of what it did not know yet."""
    defaults = json.loads(json.dumps(Config(ModelSettings(""), ("",), (RewardSettings("none"),)).to_dict()))
    return {
        name: {**default, **stored[name]} if isinstance(default, dict) and name in stored else stored.get(name, default)
        for name, default in defaults.items()
    }


def differences(old: object, new: object, name: str = "") -> list[str]:
    """What differs between two settings trees, but for what is free to change, as 'grpo.clip was 0.2, is 0.3'."""
    if isinstance(old, dict) and isinstance(new, dict):
        free = {"": APART, "run": FREE, "model": KEPT}.get(name, REACH if name.endswith(".options") else ())
        keys = [k for k in (*old, *(k for k in new if k not in old)) if k not in free]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{name}.{k}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{name}.{i}")]
    return [] if old == new else [f"{name} was {old!r}, is {new!r}"]
