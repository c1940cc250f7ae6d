"""Reading a Config from TOML and from a stored run, with errors a user can act on."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from ..models.files.picture_files import PictureError, digest, read_pictures
from ..models.files.source import EMBEDDED, HUB, ModelError, resolve
from ..plugins import is_own
from ..rewards import KINDS
from .config import (
    Config,
    EvaluationSettings,
    GrpoSettings,
    InitSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    RewardSettings,
    RunSettings,
    SamplingSettings,
    require,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = {"path", "head", "references"}  # options of rewards that name files

SECTIONS = {
    "model": ModelSettings,
    "lora": LoraSettings,
    "sampling": SamplingSettings,
    "grpo": GrpoSettings,
    "optimizer": OptimizerSettings,
    "run": RunSettings,
    "evaluation": EvaluationSettings,
    "init": InitSettings,
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a TOML file; nothing is loaded. `overrides` are `section.key=value` with TOML values.

    Relative paths in the file are relative to the file.

    Raises:
        ConfigError: an unknown key, a wrong type, a contradiction, a missing file; one line with the remedy.
    """
    table = read_table(path, overrides)
    table.setdefault("run", {})
    if isinstance(table["run"], dict):
        table["run"].setdefault("folder", str(Path("runs") / path.stem))
    return parse(table, path.parent)


def read_table(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file as plain data, with `section.key=value` overrides.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error
    for override in overrides:
        _override(table, override)
    return table


def parse(table: Mapping[str, Any], folder: Path = Path()) -> Config:
    """A Config of plain data: a TOML document, or `Config.to_dict()` of a stored run."""
    known = (*SECTIONS, "prompts", "rewards")
    known_keys(table, known, "section")
    require("model" in table, "model", None, "this section is needed, with a path")
    table = {**table, **_evaluated(table, folder), **_begun(table, folder)}
    sections = {name: parse_section(cls, table[name], name) for name, cls in SECTIONS.items() if name in table}
    sections["model"] = _resolved(sections["model"], folder)
    if "lora" in sections:
        sections["lora"] = _started(sections["lora"], folder)
    return Config(
        prompts=_prompts(table.get("prompts"), folder),
        rewards=parse_rewards(table.get("rewards", []), folder),
        **sections,
    )


def parse_rewards(rewards: Any, folder: Path) -> tuple[RewardSettings, ...]:
    """`[[rewards]]`: kinds and options that exist, folders that are there."""
    require(
        isinstance(rewards, list | tuple) and len(rewards) > 0, "rewards", rewards, "at least one [[rewards]] needed"
    )
    return tuple(_reward(r, f"rewards.{i}", folder) for i, r in enumerate(rewards))


def parse_section(cls: type, table: Any, where: str) -> Any:
    """One settings object from a table: known keys, right types, nothing missing."""
    require(isinstance(table, Mapping), where, table, f"must be a section: [{where}]")
    types = get_type_hints(cls)
    known_keys(table, types, f"key of [{where}]")
    for key, value in table.items():
        _typed(value, types[key], f"{where}.{key}")
    for f in fields(cls):
        needed = f.default is MISSING and f.default_factory is MISSING
        require(not needed or f.name in table, f"{where}.{f.name}", None, "is needed")
    return cls(**{k: _exact(v, types[k]) for k, v in table.items()})


def _exact(value: Any, expected: Any) -> Any:
    """The value in the field's own type: TOML writes 1 for 1.0 and a list for a tuple."""
    if get_origin(expected) is tuple:
        return tuple(_exact(v, get_args(expected)[0]) for v in value)
    return float(value) if expected is float else value


def _typed(value: Any, expected: Any, where: str) -> None:
    if get_origin(expected) is tuple:
        inner = get_args(expected)[0]
        known = {str: ((str,), "texts"), int: ((int,), "whole numbers"), float: ((int, float), "numbers")}
        kinds, words = known.get(inner, ((list, tuple), "lists"))
        fits = isinstance(value, list | tuple) and all(type(v) in kinds for v in value)
        require(fits, where, value, f"must be a list of {words}")
        if get_origin(inner) is tuple:
            for i, v in enumerate(value):
                _typed(v, inner, f"{where}.{i}")
        return
    allowed = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    if allowed[0] not in (int, float, str, bool):
        require(isinstance(value, Mapping), where, value, "must be a table")
        return
    fits = type(value) in allowed or (float in allowed and type(value) is int)
    words = " or ".join(
        {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[t] for t in allowed
    )
    require(fits, where, value, f"must be {words}")


def known_keys(table: Mapping[str, Any], known: Any, what: str) -> None:
    for key in table:
        _known(key, known, what)


def _known(key: str, known: Any, what: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"{key!r} is no {what}: {hint}")


def _resolved(model: ModelSettings, folder: Path) -> ModelSettings:
    """The model with absolute paths, checked to be there; a family of the user's own takes what it is given."""
    if is_own(model.family):
        return model
    named = model.path == EMBEDDED or model.path.startswith(HUB)
    model = replace(
        model,
        path=model.path if named else str((folder / Path(model.path).expanduser()).absolute()),
        vae=_files(model.vae, folder, "model.vae"),
        text_encoders=tuple(_files(model.text_encoders, folder, "model.text_encoders")),
    )
    try:
        source = resolve(model.path, model.vae, model.text_encoders)
    except ModelError as error:
        raise ConfigError(f"model.path: {error}") from None
    try:
        source.require_vae()
        source.require_encoders()
    except ModelError as error:
        raise ConfigError(str(error)) from None
    return model


def _started(lora: LoraSettings, folder: Path) -> LoraSettings:
    """The LoRA with an absolute path of the file to go on from, checked to be there."""
    if not lora.start:
        return lora
    path = (folder / Path(lora.start).expanduser()).absolute()
    require(path.is_file(), "lora.start", lora.start, f"there is no file {path}")
    return LoraSettings(**{**vars(lora), "start": str(path)})


def _evaluated(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The evaluation's section with its prompts read, where it names a file."""
    section = table.get("evaluation")
    if not isinstance(section, Mapping) or "prompts" not in section:
        return {}
    return {"evaluation": {**section, "prompts": _prompts(section["prompts"], folder)}}


def _begun(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The init's section with absolute paths, and the digest of what is in the files now."""
    section = table.get("init")
    if not isinstance(section, Mapping) or not section.get("image"):
        return {}
    image = section["image"]
    images, mask = [image] if isinstance(image, str) else image, section.get("mask", "")
    _typed(images, tuple[str, ...], "init.image")
    _typed(mask, str, "init.mask")
    images, mask = _files(images, folder, "init.image"), _files(mask, folder, "init.mask")
    try:
        pictures, grey = read_pictures(images, mask)
    except PictureError as error:
        raise ConfigError(f"init: {error}") from None
    found = digest([*pictures, *([grey] if grey else [])])
    return {"init": {**section, "image": images, "mask": mask, "digest": found}}


def _prompts(value: Any, folder: Path) -> tuple[str, ...]:
    """`prompts = "file.txt"` (one a line, # comments) or a list of texts."""
    if isinstance(value, str):
        path = folder / value
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"prompts = {value!r}: {path} cannot be read as text ({error})") from error
        return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    texts = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    require(texts, "prompts", value, "must be a list of texts, or the path of a file with one prompt a line")
    return tuple(value)


def _reward(table: Any, where: str, folder: Path) -> RewardSettings:
    reward = parse_section(RewardSettings, table, where)
    _known(reward.kind, KINDS, "reward kind")
    known = KINDS[reward.kind].options
    for key in reward.options:
        _known(key, known, f"option of the reward {reward.kind!r}") if known else require(
            False, f"{where}.options.{key}", reward.options[key], f"the reward {reward.kind!r} takes no options"
        )
    for key in KINDS[reward.kind].needs:
        require(key in reward.options, f"{where}.options.{key}", None, f"the reward {reward.kind!r} needs it")
    found = {key: _files(reward.options[key], folder, f"{where}.options.{key}") for key in FILES & {*reward.options}}
    return RewardSettings(**{**vars(reward), "options": {**reward.options, **found}})


def _files(value: Any, folder: Path, where: str) -> Any:
    """A path, or a list of paths, made absolute and checked to be there; empty stays empty."""
    if isinstance(value, list | tuple):
        return [_files(path, folder, where) for path in value]
    require(isinstance(value, str), where, value, "must be a path")
    if not value:
        return value
    absolute = (folder / Path(value).expanduser()).absolute()
    require(absolute.exists(), where, value, f"there is no file or folder {absolute}")
    return str(absolute)


def _override(table: dict[str, Any], text: str) -> None:
    """Apply `section.key=value`; a value that is not TOML is taken as text."""
    key, equals, value = text.partition("=")
    require(bool(equals and key.strip()), "--set", text, "must be section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    *sections, last = key.strip().split(".")
    place: Any = table
    for name in sections:
        try:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        except (ValueError, IndexError, AttributeError):
            raise ConfigError(f"--set {text}: there is no {name!r} in {key}") from None
    try:
        place[int(last) if isinstance(place, list) else last] = parsed
    except (ValueError, IndexError, TypeError):
        raise ConfigError(f"--set {text}: {key} cannot be set") from None
