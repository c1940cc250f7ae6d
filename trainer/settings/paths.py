"""What settings name by a path: made absolute, checked to be there, and read if the settings hold what is in it."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, brief
from ..models.files.source import HUB, ModelError, resolve
from ..picture_files import PictureError, digest, read_pictures
from ..plugins import is_own
from ..prompt_files import prompt_of, read_prompt_file
from ..texts import ESCAPED, has_control
from ..tiny import MODELS
from .described import require
from .model import LoraSettings, ModelSettings
from .typed import check_type


def absolute_path(path: str, folder: Path, where: str) -> Path:
    """Raises ConfigError if it can be no path."""
    require(not has_control(path), where, path, ESCAPED)
    return (folder / os.path.expanduser(path)).absolute()


def absolute_paths(value: Any, folder: Path, where: str) -> Any:
    """A path, or a list of paths, made absolute and checked to be there; empty stays empty."""
    if isinstance(value, list | tuple):
        return [absolute_paths(path, folder, where) for path in value]
    require(isinstance(value, str), where, value, "must be a path")
    if not value:
        return value
    path = absolute_path(value, folder, where)
    require(os.path.exists(path), where, value, f"there is no file or folder {path}")
    return str(path)


def find_model(model: ModelSettings, folder: Path) -> ModelSettings:
    """The model with absolute paths, checked to be there; a family of the user's own takes what it is given."""
    if is_own(model.family):
        return model
    named = model.path in MODELS or model.path.startswith(HUB)
    model = replace(
        model,
        path=model.path if named else str(absolute_path(model.path, folder, "model.path")),
        vae=absolute_paths(model.vae, folder, "model.vae"),
        text_encoders=tuple(absolute_paths(model.text_encoders, folder, "model.text_encoders")),
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


def find_lora(lora: LoraSettings, folder: Path) -> LoraSettings:
    """The LoRA with an absolute path of the file to go on from, checked to be there."""
    if not lora.start:
        return lora
    path = absolute_path(lora.start, folder, "lora.start")
    require(os.path.isfile(path), "lora.start", lora.start, f"there is no file {path}")
    return replace(lora, start=str(path))


def read_prompts(value: Any, folder: Path, where: str = "prompts") -> tuple[str, ...]:
    """`prompts = "file.txt"` (or .jsonl, .json, .csv: see `prompt_files`), or a list of texts."""
    if isinstance(value, str):
        path = absolute_path(value, folder, where)
        try:
            return tuple(read_prompt_file(path))
        except ConfigError as error:
            raise ConfigError(f"{where} = {brief(value)}: {error}") from error
    texts = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    require(texts, where, value, "must be a list of texts, or the path of a file with one prompt a line")
    return tuple(prompt_of(text, f"{where}.{i}") for i, text in enumerate(value))


def read_evaluation(section: Any, folder: Path) -> Any:
    """[evaluation] with its prompts read, if it names a file."""
    if not isinstance(section, Mapping) or "prompts" not in section:
        return section
    return {**section, "prompts": read_prompts(section["prompts"], folder, "evaluation.prompts")}


def read_init(section: Any, folder: Path) -> Any:
    """[init] with absolute paths, and the digest of what is in the files now."""
    if not isinstance(section, Mapping) or not section.get("image"):
        return section
    image = section["image"]
    images, mask = [image] if isinstance(image, str) else image, section.get("mask", "")
    check_type(images, tuple[str, ...], "init.image")
    check_type(mask, str, "init.mask")
    images, mask = absolute_paths(images, folder, "init.image"), absolute_paths(mask, folder, "init.mask")
    try:
        pictures, grey = read_pictures(images, mask)
    except PictureError as error:
        raise ConfigError(f"init: {error}") from None
    found = digest([*pictures, *([grey] if grey else [])])
    return {**section, "image": images, "mask": mask, "digest": found}
