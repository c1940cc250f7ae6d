"""Which settings a run has, as a short word: runs of the same word, learning rate and seed are the same run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..settings.config import SECTIONS, Config
from ..settings.described import plain

ELSEWHERE = {"model": ("path",), "run": ("folder", "seed"), "optimizer": ("learning_rate",)}  # told by task and row
LENGTH = 8  # hexadecimal digits


def fingerprint(config: Config, *further: object) -> str:
    """Of what is not a default: a setting that is added later leaves the words of older runs as they are.

    Args:
        further: what else makes the run: its budget, the noise of its reward.
    """
    chosen = {name: changed(getattr(config, name), ELSEWHERE.get(name, ())) for name in SECTIONS}
    told = json.dumps([chosen, config.prompts, plain(config.rewards), further], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:LENGTH]


def changed(section: Any, leave: Sequence[str]) -> dict[str, object]:
    """What a section has that is not its default."""
    known = {f.name: f.default for f in fields(section)}
    return {name: value for name, value in plain(section).items() if name not in leave and value != known[name]}
