"""Where a model is: the embedded one, a diffusers folder, a single file, or a hub id given on purpose."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ... import tiny
from ...errors import UserError, brief
from .headers import CONFIG, damage, read_config, tensor_names
from .safe_file import DamagedFile, unmap

EMBEDDED = "embedded"
HUB = "hub:"
GGUF = ".gguf"
SINGLE_FILES = (".safetensors", GGUF)
# of the parts' tensors in a whole ComfyUI checkpoint
TRANSFORMER_PREFIX = "model.diffusion_model."
VAE_PREFIX = "vae."
ENCODERS_PREFIX = "text_encoders."


class ModelError(UserError):
    """A model that cannot be used, with the reason and the remedy in one line."""


@dataclass(frozen=True)
class ModelSource:
    """A resolved model location. `location` is a folder, a file, or a repository id when `hub` is true."""

    name: str  # as the user wrote it
    location: str
    hub: bool
    vae: str = ""  # a file that takes the place of the model's own autoencoder
    text_encoders: tuple[str, ...] = ()  # files that take the place of the model's own CLIP and T5

    @property
    def file(self) -> Path | None:
        """The model's transformer, or all of the model, in one file; None if it is a folder."""
        return Path(self.location) if not self.hub and self.location.endswith(SINGLE_FILES) else None

    def folder(self, part: str) -> Path:
        """The folder of one part of the pipeline; of a `hub:` name it is downloaded into the hub's cache."""
        root = Path(self._download(part) if self.hub else self.location)
        if not (root / part).is_dir():
            raise self.error(f"it has no folder {part!r}")
        return root / part

    def says(self, part: str) -> str:
        """The configuration of one part of a folder, as text; empty if there is none."""
        try:
            with (Path(self.location) / part / "config.json").open("rb") as file:
                return file.read(CONFIG).decode("utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def require_vae(self) -> None:
        """Check that a single file has an autoencoder, of its own or beside it."""
        if self.file and not self.vae and not _holds(self.file, VAE_PREFIX):
            raise ModelError(
                f"model.vae is not set and {self.file} holds no autoencoder: give the path of ae.safetensors"
            )

    def require_encoders(self) -> None:
        """Check that a single file has text encoders, of its own or beside it."""
        if self.file and not self.text_encoders and not _holds(self.file, ENCODERS_PREFIX):
            raise ModelError(
                f"model.text_encoders is not set and {self.file} holds none: give the paths of clip_l.safetensors and "
                "t5xxl_fp16.safetensors"
            )

    def _download(self, part: str) -> str:
        from huggingface_hub import snapshot_download

        try:
            return snapshot_download(self.location, allow_patterns=[f"{part}/*.json", f"{part}/*.safetensors"])
        except (OSError, ValueError) as error:
            raise self.error(f"its {part} cannot be downloaded ({' '.join(str(error).split())[:200]})") from error

    def load(self, cls: type[Any], part: str, **options: Any) -> Any:
        """One part of the pipeline with `cls.from_pretrained`; the network is used for a `hub:` name only."""
        if not self.hub and not (Path(self.location) / part).is_dir():
            raise self.error(f"it has no folder {part!r}")
        try:
            self._check_config(part)
            return cls.from_pretrained(self.location, subfolder=part, local_files_only=not self.hub, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise self.error(f"its {part} does not load ({reason[:200]})") from error

    def _check_config(self, part: str) -> None:
        """Raises ValueError if a part's configuration asks for a model that would be built for hours."""
        config = Path(self.location) / part / "config.json"
        if not self.hub and config.is_file():
            read_config(config)

    def load_model(self, cls: type[Any], part: str, **options: Any) -> Any:
        """Like `load`, for a part with weights; none of them may be missing, as it would silently be random."""
        model, report = self.load(cls, part, output_loading_info=True, **options)
        missing = sorted(report["missing_keys"])
        if missing:
            raise self.error(f"its {part} lacks {len(missing)} weights, the first is {missing[0]}")
        unmap(model)
        return model

    def error(self, reason: str) -> ModelError:
        return ModelError(
            f"model {brief(self.name)} cannot be used: {reason}; a FLUX model in the layout of FLUX.1-dev's diffusers "
            "folder is needed"
        )


def _holds(file: Path, prefix: str) -> bool:
    """Whether a single file has tensors with names that begin so."""
    try:
        return file.suffix != GGUF and any(name.startswith(prefix) for name in tensor_names(file))
    except (OSError, DamagedFile) as error:
        raise ModelError(damage(file, error)) from error


def resolve(name: str, vae: str = "", text_encoders: Sequence[str] = ()) -> ModelSource:
    """A name of `tiny.MODELS`, the path of a folder or file, or `hub:owner/name` (which alone uses the network).

    `vae` and `text_encoders` are files that take the place of the model's own.

    Raises:
        ModelError: the model is neither of these.
    """
    encoders = tuple(text_encoders)
    if name in tiny.MODELS:
        return ModelSource(name, str(tiny.MODELS[name].folder), hub=False, vae=vae, text_encoders=encoders)
    if name.startswith(HUB):
        return ModelSource(name, name.removeprefix(HUB), hub=True, vae=vae, text_encoders=encoders)
    path = Path(os.path.expanduser(name))  # unlike pathlib's, it takes any text
    if not os.path.isfile(path if name.endswith(SINGLE_FILES) else path / "model_index.json"):
        raise ModelError(
            f"model {brief(name)}: no diffusers folder there (no model_index.json) and no "
            f"{' or '.join(SINGLE_FILES)} file. Give the path of one, {EMBEDDED!r} for a small model that comes with "
            f"this project, or '{HUB}owner/name' to download"
        )
    return ModelSource(name, str(path), hub=False, vae=vae, text_encoders=encoders)
