"""Weights of rewards in models/rewards, as a node offers them."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..trainer.errors import brief
from ..trainer.rewards.weights import KNOWN, look_in
from .newer import rare

FOLDER = "rewards"  # models/rewards
AUTO, EMBEDDED = "auto", "embedded"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
PARTS = ("config.json", "model.safetensors")  # either one makes a folder a model

(DTYPE,) = rare(
    io.Combo.Input(
        "precision",
        options=[AUTO, "float32", "bfloat16", "float16"],
        default=AUTO,
        tooltip="auto: float16 on the GPU, float32 on the CPU. float32 takes twice the memory, and scores as "
        "published.",
    )
)


def register_folder() -> None:
    """Let users keep reward models in models/rewards, or wherever extra_model_paths.yaml says."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    look_in(folder_paths.get_folder_paths(FOLDER))


def reward_folders() -> dict[str, str]:
    """Folders with a config.json in models/rewards, by name."""
    roots = [Path(p) for p in folder_paths.get_folder_paths(FOLDER)]
    return {p.parent.name: str(p.parent) for root in roots for p in sorted(root.glob("*/config.json"))}


def reward_models() -> dict[str, str]:
    """Files of weights and folders of models in models/rewards, by name; the first folder's if two have one."""
    found: dict[str, str] = {}
    for root in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for path in sorted(root.glob("*")):
            folder = any((path / part).is_file() for part in PARTS)
            if folder or (path.is_file() and path.suffix in SUFFIXES):
                found.setdefault(path.name, str(path))
    return found


def weights_input(what: str, name: str = "model", *, more: str = "", also: tuple[str, ...] = ()) -> io.Combo.Input:
    """Which weights: "auto" are those that are known as `what`; `more` says what else may be chosen."""
    auto = KNOWN[what]
    beside = f", with {auto.beside} beside it" if auto.beside else ""
    tooltip = f"auto: {auto.short} in models/rewards{beside}. {more}".strip()
    return io.Combo.Input(name, options=[AUTO, *also, *reward_models()], default=AUTO, tooltip=tooltip)


def known(name: str, what: str, also: tuple[str, ...] = ()) -> bool | str:
    """What `validate_inputs` returns for a chosen model; `what` are the weights that auto stands for."""
    if name == AUTO:
        from ..trainer.rewards import RewardError
        from ..trainer.rewards.weights import find

        try:
            return bool(find(what))
        except RewardError as error:
            return str(error)
    return name in (*also, *reward_models()) or (
        f"there is no {brief(name)} in models/rewards: put it there and press R, or choose auto"
    )


def path_of(name: str) -> str:
    """As the trainer's option `path`: empty leaves it to the reward to find its weights."""
    if name == EMBEDDED:
        from ..trainer import tiny

        return str(tiny.CLIP)
    return "" if name == AUTO else reward_models()[name]
