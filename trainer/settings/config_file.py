"""Reading a Config from TOML and from a stored run, with errors a user can act on."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, brief
from ..plugins import is_own
from ..rewards import KINDS, kind_of
from ..texts import BACKSLASHES, lines_of, read_text
from .config import SECTIONS, Config, RewardSettings
from .described import require
from .paths import absolute_paths, find_lora, find_model, read_evaluation, read_init, read_prompts
from .presets import PRESETS, Defaults, completed_by
from .typed import known_key, known_keys, parse_section

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST = 2**20  # bytes of a file
PRESET = "preset"  # the key that names one
NONE: Defaults = {}


def load_config(path: Path, overrides: Sequence[str] = (), defaults: Defaults = NONE) -> Config:
    """Read and check a TOML file; nothing is loaded. Relative paths in it are relative to the file.

    Args:
        overrides: `section.key=value` with TOML values.
        defaults: of what neither the file nor its preset says, where they are others than the settings' own.

    Raises:
        ConfigError: an unknown key, a wrong type, a contradiction, a missing file; one line with the remedy.
    """
    table = read_table(path, overrides)
    table.setdefault("run", {})
    if isinstance(table["run"], dict):
        table["run"].setdefault("folder", str(Path("runs") / path.stem))
    return parse(completed_by(preset_in(table), defaults), path.parent)


def read_table(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file as plain data, with `section.key=value` overrides.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    text = read_text(path, MOST)
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: not a TOML file that can be read (too deep)") from None
    except ValueError as error:  # TOMLDecodeError, and a number of thousands of digits
        raise ConfigError(f"{path}: not a TOML file ({error}){_remedy(text, str(error))}") from error
    for override in overrides:
        set_value(table, override)
    return table


def parse(table: Mapping[str, Any], folder: Path = Path()) -> Config:
    """A Config of plain data: a TOML document, or `Config.to_dict()` of a stored run."""
    table = {name: value for name, value in preset_in(table).items() if name != "holds"}  # which is found anew
    known_keys(table, (*SECTIONS, "prompts", "rewards", PRESET), "section")
    require("model" in table, "model", None, "this section is needed, with a path")
    readers = {"evaluation": read_evaluation, "init": read_init}
    table = {**table, **{name: read(table[name], folder) for name, read in readers.items() if name in table}}
    sections = {name: parse_section(cls, table[name], name) for name, cls in SECTIONS.items() if name in table}
    sections["model"] = find_model(sections["model"], folder)
    if "lora" in sections:
        sections["lora"] = find_lora(sections["lora"], folder)
    return Config(
        prompts=read_prompts(table.get("prompts"), folder),
        rewards=parse_rewards(table.get("rewards", []), folder),
        **sections,
    )


def preset_in(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the defaults of the preset that it names.

    Raises:
        ConfigError: there is no preset of that name.
    """
    table = dict(table)
    name = table.pop(PRESET, None)
    if name is None:
        return table
    require(isinstance(name, str) and name in PRESETS, PRESET, name, f"must be one of {', '.join(PRESETS)}")
    return completed_by(table, PRESETS[name].defaults)


def parse_rewards(rewards: Any, folder: Path) -> tuple[RewardSettings, ...]:
    """`[[rewards]]`: kinds and options that exist, folders that are there."""
    require(
        isinstance(rewards, list | tuple) and len(rewards) > 0, "rewards", rewards, "at least one [[rewards]] needed"
    )
    return tuple(_reward(r, f"rewards.{i}", folder) for i, r in enumerate(rewards))


def _reward(table: Any, where: str, folder: Path) -> RewardSettings:
    reward = parse_section(RewardSettings, table, where)
    if not is_own(reward.kind):
        known_key(reward.kind, KINDS, "reward kind")
    kind, options = kind_of(reward.kind), f"{where}.options"
    for key, value in reward.options.items() if not kind.outline.more else ():
        require(bool(kind.options), f"{options}.{key}", value, f"the reward {brief(reward.kind)} takes no options")
        known_key(key, kind.options, f"option of the reward {brief(reward.kind)}")
    for key in kind.needs:
        require(key in reward.options, f"{options}.{key}", None, f"the reward {brief(reward.kind)} needs it")
    files = {key: reward.options[key] for key in kind.files if key in reward.options}
    found = {key: absolute_paths(value, folder, f"{options}.{key}") for key, value in files.items()}
    return replace(reward, options={**reward.options, **found})


def set_value(table: dict[str, Any], text: str) -> None:
    """Apply `section.key=value`; a value that is not TOML is taken as text."""
    key, equals, value = text.partition("=")
    require(bool(equals and key.strip()), "--set", text, "must be section.key=value")
    parsed = _toml_value(text, value.strip())
    *sections, last = key.strip().split(".")
    place: Any = table
    for name in sections:
        try:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        except (ValueError, IndexError, AttributeError):
            raise ConfigError(f"--set = {brief(text)}: there is no {brief(name)} in {brief(key)}") from None
    try:
        place[int(last) if isinstance(place, list) else last] = parsed
    except (ValueError, IndexError, TypeError):
        raise ConfigError(f"--set = {brief(text)}: {brief(key)} cannot be set") from None


def _toml_value(override: str, text: str) -> Any:
    """A value of `--set`; if it is not TOML it is a text without quotes."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        quoted = text.startswith(('"', "'"))
        require(not quoted, "--set", override, f"not TOML ({error}){_remedy(text, 'at line 1')}")
        return text
    require(len(document) == 1, "--set", override, "must be one value")
    return document["value"]


def _remedy(text: str, error: str) -> str:
    """What to do about a line that is not TOML, for mistakes that are often made."""
    found = re.search(r"at line (\d+)", error)
    line = lines_of(text)[int(found[1]) - 1] if found else ""
    if "\\" in line and '"' in line:
        return ": " + BACKSLASHES
    return ': write plain quotes, "..."' if any(mark in line for mark in "“”„‘’«»") else ""
