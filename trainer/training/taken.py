"""What `sample` takes of what a LoRA's file or a run's folder says.

Numbers and this project's own words are taken as they are. Of a run's folder, the local files that it names are used
too. What would be sent, fetched or run as code, and of a LoRA's file whatever would be read, counts only if the user
repeats it on the command line. Layers and rank are those of the LoRA's tensors: no expression of a file is run.
"""

import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..choices import START
from ..errors import ConfigError, brief
from ..history.runs import tree
from ..models.files.headers import damage, shapes
from ..models.files.safe_file import DamagedFile
from ..models.files.source import HUB
from ..models.lora.endings import is_dora, largest_rank
from ..rewards import KINDS
from ..settings.config import GrpoSettings, SamplingSettings
from ..settings.presets import as_now
from ..tiny import is_embedded
from .brought import Brought
from .lora_header import public_settings

# public settings that drawing depends on, and those of the machine, which a run's folder alone brings
DRAWN = {
    "model": ("guidance", "text_tokens", "dtype", "family"),
    "sampling": tuple(f.name for f in fields(SamplingSettings)),
    "grpo": tuple(f.name for f in fields(GrpoSettings) if f.name != "objective"),
    "init": ("denoise", "reference"),
}
MACHINE = {
    "model": ("device", "memory", "offload", "matmul", "compile", "checkpointing", "keep_inputs"),
    "run": ("micro_batch", "rollout_batch", "offload_rewards"),
}
PATHS = ("model.path", "model.vae", "model.text_encoders", "init.image", "init.mask")
CLASSES = ("model.family", "sampling.solver")
RUNS, SENDS, READS = "its code would run", "would be sent the pictures", "would be read"
FETCHES = "would be fetched or asked for over the network"
DEVICE = re.compile(r"[a-z]{2,12}(:\d{1,3})?")


@dataclass(frozen=True)
class Given:
    """What the user says on the command line."""

    model: str = ""
    rewards: Sequence[Mapping[str, Any]] = ()
    settings: Collection[str] = ()  # names of those with a --set

    def decides(self, name: str) -> bool:
        """Whether a setting is thereby decided: it, or its whole section."""
        said = {"model.path": bool(self.model), "rewards": bool(self.rewards)}
        return said.get(name, False) or any(f"{name}.".startswith(f"{one}.") for one in self.settings)


@dataclass(frozen=True)
class Objection:
    """Something that is not taken: which setting, how to repeat it on the command line, and what it would do."""

    name: str
    repeat: str
    why: str


def table_of(brought: Brought, given: Given) -> dict[str, Any]:
    """The settings to draw with, as a config has them but for the prompts: what is harmless, and what `given` says.

    Raises:
        ConfigError: the rest of what it names, with what it would do and how to repeat it.
    """
    table = taken(brought)
    open_ones = [one for one in objections(brought) if not given.decides(one.name)]
    if open_ones:
        said = "; ".join(f"{one.repeat} ({one.why})" for one in open_ones[:12])
        raise ConfigError(
            f"{brought.source} may come from anybody: repeat what you trust of it, or give others: {said}"
        )
    if given.model:
        table.setdefault("model", {})["path"] = given.model
    if given.rewards:
        table["rewards"] = list(given.rewards)
    table["lora"] = lora_section(brought.lora)
    return table


def lora_section(path: Path) -> dict[str, Any]:
    """Settings by which a LoRA begins as a file has it, in that file's own layers and rank.

    Raises:
        ConfigError: it is no safetensors file.
    """
    found = lora_shapes(path)
    variant = "dora" if is_dora(found) else "lora"
    return {"start": str(path.absolute()), "targets": START, "rank": largest_rank(found) or 1, "variant": variant}


def lora_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Raises ConfigError if it is no safetensors file."""
    try:
        return shapes(path)
    except (OSError, DamagedFile) as error:
        raise ConfigError(damage(path, error)) from error


def taken(brought: Brought) -> dict[str, Any]:
    """What does nothing but compute; of a run's folder, local files too."""
    public = as_now(public_settings(brought.settings))
    table: dict[str, Any] = {}
    parts = [DRAWN, *([MACHINE] if brought.is_run else [])]
    for section, names in ((section, names) for part in parts for section, names in part.items()):
        its = {name: public[section][name] for name in names if name in public.get(section, {})}
        table.setdefault(section, {}).update(its)
    table["rewards"] = [dict(reward) for reward in rewards_of(brought)]
    for name in PATHS:
        value, (section, key) = named(brought, name), name.split(".")
        if value and (is_embedded(value) or not why_not_read(brought, value)):
            table[section][key] = value
    device = named(brought, "model.device")
    if brought.is_run and isinstance(device, str) and DEVICE.fullmatch(device):
        table["model"]["device"] = device
    return table


def objections(brought: Brought) -> Iterator[Objection]:
    """What is not taken, and would matter."""
    public = public_settings(brought.settings)
    if not named(brought, "model.path"):
        yield Objection("model.path", "--model PATH", "the model it was trained on")
    for name in PATHS:
        value = named(brought, name)
        if value and not is_embedded(value) and (why := why_not_read(brought, value)):
            option = "--model" if name == "model.path" else f"--set {name}="
            yield Objection(name, said(option, value), why)
    init = public.get("init", {})
    begun = named(brought, "init.digest") or init.get("reference") or init.get("denoise", 1) != 1
    if begun and not named(brought, "init.image"):
        yield Objection("init.image", "--set init.image=PATH", "the picture it began from; [] for none")
    for name in (*CLASSES, *(f"sampling.{f.name}" for f in fields(SamplingSettings) if f.name != "solver")):
        value, (section, key) = named(brought, name), name.split(".")
        if value not in (None, [], ()) and key not in public.get(section, {}):
            yield Objection(name, said(f"--set {name}=", value), RUNS if name in CLASSES else "out of range")
    rewards = rewards_of(brought)
    whys = [why_not(brought, reward) for reward in rewards]
    if any(whys):
        for reward, why in zip(rewards, whys, strict=True):
            yield Objection("rewards", repeated(reward), why or "beside it")
    if not rewards:
        yield Objection("rewards", "--reward KIND", "it names none")


def why_not_read(brought: Brought, value: object) -> str:
    """Why the file or files that a setting names are not read; empty if they may be."""
    if not is_local(value):
        return FETCHES
    if not brought.is_run:
        return READS
    listed = value if isinstance(value, list | tuple) else [value]
    paths = [os.path.expanduser(str(one)) for one in listed]  # by os.path, which takes any text
    there = all(os.path.isfile(path) or os.path.isdir(path) for path in paths)
    return "" if there else "is not there any more"


def rewards_of(brought: Brought) -> list[Mapping[str, Any]]:
    rewards = brought.settings.get("rewards")
    return [tree(reward) for reward in rewards[:20]] if isinstance(rewards, list | tuple) else []


def why_not(brought: Brought, reward: Mapping[str, Any]) -> str:
    """Why a reward is not taken from a file; empty if it may be used."""
    kind, options = KINDS.get(str(reward.get("kind"))), tree(reward.get("options"))
    if kind is None:
        return RUNS
    if "url" in kind.options:
        return SENDS
    if not brought.is_run and (kind.files or options):
        return READS
    return next(filter(None, (why_not_read(brought, options[name]) for name in kind.files if options.get(name))), "")


def named(brought: Brought, name: str) -> Any:
    section, key = name.split(".")
    return tree(brought.settings.get(section)).get(key)


def is_local(value: object) -> bool:
    """Whether it is the path of a file or folder of this machine, or a list of such; what is no file is refused later.

    A path of another machine (\\\\server\\share) would tell its owner who asks.
    """
    if isinstance(value, list | tuple):
        return all(is_local(one) for one in value)
    remote = ("\\\\", "//", "\\/", "/\\", HUB)
    return isinstance(value, str) and not value.startswith(remote) and "://" not in value and "\0" not in value


def repeated(reward: Mapping[str, Any]) -> str:
    usual = {"name": "", "weight": 1.0, "held_out": False}
    options = {key: reward[key] for key in usual if reward.get(key, usual[key]) != usual[key]}
    options |= tree(reward.get("options"))
    words = [plain(reward.get("kind")), *(f"{plain(key)}={plain(value)}" for key, value in options.items())]
    return f"--reward {shlex.join(words[:12])}"


def said(option: str, value: object) -> str:
    text = shlex.quote(plain(value))
    return f"{option}{text}" if option.endswith("=") else f"{option} {text}"


def plain(value: object) -> str:
    """A value of anybody for a message: on one line, and short."""
    return brief(value)[1:-1] if isinstance(value, str) else brief(value)
