"""What an exported LoRA says of itself: numbers, and words of this project. Nothing else of the settings can be in it.

A LoRA is given to others: no path, address, prompt, name or option of the user's own is written.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from .. import __version__
from ..history.runs import tree
from ..rewards import KINDS
from ..settings.config import SECTIONS, Config
from ..settings.described import Setting, described
from ..tiny import MODELS

OWN = "own"  # a reward's kind that is a class of the user's
LARGEST = 2**63  # of a number
PLAIN = {  # what else may stand in a header
    "software": re.compile(r"neighbor-grpo [\w.+-]{1,40}"),
    "base_model": re.compile(rf"{'|'.join(MODELS)}|sha256:[0-9a-f]{{64}}"),
    "iteration": re.compile(r"\d{1,12}"),
    "step": re.compile(r"\d{1,12}"),
}


def lora_metadata(config: Config, iteration: int, changes: Sequence[Mapping[str, Any]] = ()) -> dict[str, object]:
    """The header of a LoRA after `iteration` iterations.

    Args:
        changes: that a person made during the run, see `events.Change`.
    """
    settings = config.to_dict()
    digest = config.holds.get("model.path", {}).get("digest", "")
    model = f"sha256:{digest}" if digest else ""
    if config.model.path in MODELS:
        model = config.model.path
    numbers = numbers_of(changes)
    return {
        "software": f"neighbor-grpo {__version__}",
        **({"base_model": model} if model else {}),
        "iteration": iteration,
        "rewards": public_rewards(settings["rewards"]),
        "settings": public_settings(settings),
        **({"changes": numbers} if numbers else {}),
    }


def public_settings(settings: object) -> dict[str, dict[str, Any]]:
    """Those of a tree of settings, whoever's, that are numbers or words of this project, and in their range."""
    found = {}
    for name, section in SECTIONS.items():
        its = tree(tree(settings).get(name))
        allowed = {f.name: its[f.name] for f in fields(section) if f.name in its}
        found[name] = {key: value for key, value in allowed.items() if is_public(value, described(section, key))}
    return {name: section for name, section in found.items() if section}


def public_rewards(rewards: object) -> list[dict[str, Any]]:
    """Kind, weight and role of each reward, without its options: they may be addresses and names."""
    found = []
    for reward in map(tree, rewards if isinstance(rewards, list | tuple) else ()):
        kind = reward.get("kind")
        numbers = {key: reward[key] for key in ("weight", "held_out") if is_number(reward.get(key))}
        found.append({"kind": kind if isinstance(kind, str) and kind in KINDS else OWN, **numbers})
    return found


def is_public(value: Any, setting: Setting) -> bool:
    """Whether it is a number in the setting's range, one of the setting's words, or a list of such."""
    if isinstance(value, list | tuple):
        return bool(value) and all(is_public(one, setting) for one in value)
    if isinstance(value, str):
        return value in setting.choices
    low = -LARGEST if setting.lowest is None else setting.lowest
    high = LARGEST if setting.highest is None else setting.highest
    return is_number(value) and setting.allows(value) and low <= value <= high


def cleaned(metadata: Mapping[str, str]) -> dict[str, str]:
    """A file's header without what `lora_metadata` would not write: an older version wrote paths and prompts."""
    found: dict[str, Any] = {key: metadata[key] for key, form in PLAIN.items() if form.fullmatch(metadata.get(key, ""))}
    tables = {key: from_json(metadata.get(key, "")) for key in ("settings", "rewards", "changes")}
    found["settings"] = public_settings(tables["settings"])
    found["rewards"] = public_rewards(tables["rewards"])
    found["changes"] = numbers_of(tables["changes"])
    text = {key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in found.items()}
    return {"format": "pt", **{key: value for key, value in text.items() if found[key]}}


def numbers_of(changes: object) -> list[dict[str, Any]]:
    """What of a list of changes is numbers."""
    listed = changes if isinstance(changes, list | tuple) else ()
    names = ("iteration", "learning_rate", "strength")
    return [{key: tree(change)[key] for key in names if is_number(tree(change).get(key))} for change in listed]


def from_json(text: str) -> Any:
    """None if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_number(value: Any) -> bool:
    """Whether it is a truth value or a number that has an end."""
    return isinstance(value, bool | int | float) and -LARGEST < value < LARGEST
