"""What is planned: a config whose model need not be there yet, and a card."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .. import tiny
from ..errors import ConfigError
from ..models.files.source import EMBEDDED, HUB
from ..settings.config import Config
from ..settings.config_file import parse, read_table
from ..settings.paths import absolute_path


def read_config(path: Path, overrides: tuple[str, ...] | list[str] = ()) -> Config:
    """`load_config` of a run whose model need not be there yet.

    Raises:
        ConfigError: what is wrong with the file, in one line.
    """
    table = read_table(path, overrides)
    model = table.get("model")
    if not isinstance(model, Mapping) or not isinstance(named := model.get("path"), str):
        return parse(table, path.parent)  # which says what is missing
    config = parse({**table, "model": {**model, "path": EMBEDDED}}, path.parent)
    if named not in tiny.MODELS and not named.startswith(HUB):
        named = str(absolute_path(named, path.parent, "model.path"))
    return replace(config, model=replace(config.model, path=named))


def check_vram(vram: float | None) -> None:
    """Raises ConfigError if the card's GiB, if one is asked about, cannot be."""
    if vram is not None and not vram > 0:
        raise ConfigError(f"vram = {vram:g}: must be the card's memory in GiB, such as 16")
