"""What a run's folder or a LoRA's file says of its run, as it stands there: data, which may come from anybody."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..history.runs import tree
from ..models.files.headers import damage, metadata
from ..models.files.safe_file import DamagedFile
from ..store.database import StoreError
from ..store.reader import reading
from ..tiny import is_embedded
from .checkpoint import CheckpointError, load_state
from .identity import digest_of, found_beside, holds_of
from .lora_header import from_json
from .run_folder import CHECKPOINTS, LORA


@dataclass(frozen=True)
class Brought:
    """The settings of a run, by the LoRA's file or the run's folder."""

    source: Path  # as the user named it
    lora: Path
    settings: Mapping[str, Any]  # anybody's
    is_run: bool  # whether it is a folder, whose local files may be read
    digest: str  # of the model it was trained on; empty if that is not known


def brought_by(source: Path) -> Brought:
    """What a run's folder says, or a LoRA that a run exported.

    Raises:
        ConfigError: it is neither.
    """
    lora = source / LORA if source.is_dir() else source
    if not lora.is_file():
        raise ConfigError(f"{lora}: no such file; give a run's folder or a LoRA that a run exported")
    if source.is_dir() and (settings := settings_of_run(source)):
        found_beside(settings, source)
        return Brought(source, lora, settings, True, holds_of(settings).get("model.path", ""))
    try:
        header = metadata(lora)
    except (OSError, DamagedFile) as error:
        raise ConfigError(damage(lora, error)) from error
    settings, rewards = from_json(header.get("settings", "")), from_json(header.get("rewards", ""))
    if not isinstance(settings, dict) or not isinstance(rewards, list):
        raise ConfigError(f"{lora}: not exported by a run of this project (its settings are missing)")
    base = header.get("base_model", "")
    if is_embedded(base):
        settings["model"] = {**tree(settings.get("model")), "path": base}
    digest = base.removeprefix("sha256:")
    return Brought(source, lora, {**settings, "rewards": rewards}, False, digest)


def settings_of_run(folder: Path) -> dict[str, Any]:
    """As its newest whole checkpoint has them, or its store; empty if neither does."""
    try:
        state = load_state(folder / CHECKPOINTS)
        if state:
            return dict(tree(state.get("settings")))
        with reading(folder) as store:
            return dict(tree(store.info().get("settings")))
    except (CheckpointError, StoreError):
        return {}


def iteration_of(lora: Path) -> int | None:
    """After how many iterations a LoRA was exported, by its header; None if that is not known."""
    try:
        number = metadata(lora).get("iteration", "")
    except (OSError, DamagedFile):
        return None
    return int(number) if re.fullmatch(r"\d{1,12}", number) else None


def other_model(brought: Brought, path: str) -> bool:
    """Whether a model is known to be another than the LoRA was trained on."""
    found = digest_of(path, parts_alone=True) if re.fullmatch(r"[0-9a-f]{64}", brought.digest) else ""
    return bool(found) and found != brought.digest
