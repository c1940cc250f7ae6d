"""What the paths of a run's settings hold: a run goes on with the same files wherever they lie now.

No digest reads a model of 24 GB: of a large file it takes the size, the beginning (where a header lists all tensors)
and blocks from all over it. Two models that differ, differ in nearly every block.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..models.files.source import HUB
from ..plugins import is_own
from ..rewards import KINDS
from ..settings.config import Config
from ..tiny import MODELS

WHOLE = 2**24  # bytes of a file that is read from its beginning to its end
BEGINNING = 2**20  # bytes
BLOCKS, BLOCK = 64, 2**16  # how many of how many bytes
MOST_FILES = 10_000  # of a folder
WEIGHTS, DOUBLES = ".safetensors", (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx")
ELSEWHERE = (".md", ".txt~", ".lock", ".metadata")  # what tells nothing of a model, and what downloads leave behind


def identified(config: Config) -> Config:
    """The config with `holds`: for each setting that names something local its digest, and where it lies by the run."""
    holds = {}
    folder = os.path.abspath(config.run.folder)
    for name, path in paths_of(json.loads(json.dumps(config.to_dict()))):
        if digest := digest_of(path, parts_alone=name == "model.path"):
            holds[name] = {"digest": digest}
            if os.path.splitdrive(os.path.abspath(path))[0] == os.path.splitdrive(folder)[0]:
                holds[name]["beside"] = os.path.relpath(path, folder).replace(os.sep, "/")
    return replace(config, holds=holds)


def paths_of(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, path) of all that settings name by a path, the pictures aside, which have a digest of their own."""
    model = settings.get("model", {})
    if not is_own(model.get("family", "")):  # whose path means what it likes
        yield "model.path", model.get("path", "")
    named = {"model.vae": model.get("vae"), "lora.start": settings.get("lora", {}).get("start")}
    named |= {f"model.text_encoders.{i}": path for i, path in enumerate(model.get("text_encoders", ()))}
    for i, reward in enumerate(settings.get("rewards", ())):
        for option in KINDS[reward["kind"]].files if reward["kind"] in KINDS else ():
            value, name = reward.get("options", {}).get(option), f"rewards.{i}.options.{option}"
            named |= {f"{name}.{n}": path for n, path in enumerate(value)} if isinstance(value, list) else {name: value}
    yield from ((name, path) for name, path in named.items() if isinstance(path, str))


def digest_of(path: str, *, parts_alone: bool = False) -> str:
    """SHA-256 of what a file or folder holds; empty if there is none.

    Args:
        parts_alone: whether of a folder only model_index.json and the folders in it count, as of a diffusers model.
    """
    if not path or path in MODELS or path.startswith(HUB) or not os.path.exists(path):
        return ""
    if os.path.isfile(path):
        return _of_file(path, os.stat(path).st_size, os.stat(path).st_mtime_ns)
    total = hashlib.sha256()
    for name in _files_in(Path(path), parts_alone):
        file = os.path.join(path, name)
        found = _of_file(file, os.stat(file).st_size, os.stat(file).st_mtime_ns)
        total.update(f"{name}\0{found}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _files_in(folder: Path, parts_alone: bool) -> list[str]:
    """By their paths in the folder, sorted: those that a model is made of."""
    found: list[str] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in names if not name.startswith(".") and not name.endswith(ELSEWHERE)]
        if any(name.endswith(WEIGHTS) for name in names):  # the same weights once more are not read
            names = [name for name in names if not name.endswith(DOUBLES)]
        if parts_alone and Path(root) == folder:
            names = [name for name in names if name == "model_index.json"]
        found += [Path(root, name).relative_to(folder).as_posix() for name in names if os.path.isfile(Path(root, name))]
        if len(found) > MOST_FILES:
            break
    return sorted(found[:MOST_FILES])


@cache
def _of_file(path: str, size: int, changed: int) -> str:
    """By its size and the time of its last change, so that nothing is read twice."""
    total = hashlib.sha256(f"{size}\n".encode())
    with open(path, "rb", buffering=0) as file:
        if size <= WHOLE:
            while part := file.read(BEGINNING):
                total.update(part)
            return total.hexdigest()
        total.update(file.read(BEGINNING))
        for i in range(BLOCKS):
            file.seek(BEGINNING + i * (size - BEGINNING - BLOCK) // (BLOCKS - 1))
            total.update(file.read(BLOCK))
    return total.hexdigest()


def same_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Settings that name another path for the same thing.

    A run of before there were digests is believed if the file or folder has the same name.
    """
    before, now = holds_of(old), holds_of(new)
    paths = dict(paths_of(old))
    same = {name for name, digest in now.items() if before.get(name) == digest}
    named = {name for name, path in paths_of(new) if name in now and name not in before}
    same |= {name for name in named if _last(paths.get(name, "")) == _last(dict(paths_of(new))[name])}
    pictures = old.get("init", {}).get("digest")
    if pictures and pictures == new.get("init", {}).get("digest"):
        same |= {"init.image", "init.mask"}
    return same


def found_beside(settings: dict[str, Any], folder: Path) -> None:
    """Correct paths of a run's settings that are gone, if the same lies where it lay as seen from the run's folder.

    Args:
        settings: of anybody's; what is odd in them stays.
    """
    try:
        named = {name: path for name, path in paths_of(settings) if not os.path.exists(path)}
        for name, path in named.items():
            its = settings.get("holds", {}).get(name, {})
            beside = str(its.get("beside", ""))
            moved = os.path.normpath(os.path.join(folder, beside))
            apart = not beside or os.path.isabs(beside) or beside.startswith(("\\", "//"))
            if path and not apart and digest_of(moved, parts_alone=name == "model.path") == its.get("digest"):
                *parents, last = name.split(".")
                place: Any = settings
                for key in parents:
                    place = place[int(key)] if isinstance(place, list) else place[key]
                place[int(last) if isinstance(place, list) else last] = moved
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OSError):
        return


def changed_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings whose path is the same and holds something else."""
    before, now, paths = holds_of(old), holds_of(new), dict(paths_of(old))
    return [
        name for name, path in paths_of(new) if paths.get(name) == path and _differ(before.get(name), now.get(name))
    ]


def holds_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Setting -> digest, as stored settings have them."""
    holds = settings.get("holds")
    tables = holds.items() if isinstance(holds, Mapping) else ()
    return {name: str(its.get("digest")) for name, its in tables if isinstance(its, Mapping)}


def _differ(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and before != now


def _last(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
