"""Where a model is: the embedded one, a diffusers folder, or a hub id given on purpose."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .. import tiny
from ..errors import UserError

EMBEDDED = "embedded"
HUB = "hub:"


class ModelError(UserError):
    """A model that cannot be used, with the reason and the remedy in one line."""


@dataclass(frozen=True)
class ModelSource:
    """A resolved model location. `location` is a folder, or a repository id when `hub` is true."""

    name: str  # as the user wrote it
    location: str
    hub: bool

    def load(self, cls: type, part: str, **options: Any) -> Any:
        """One part of the pipeline with `cls.from_pretrained`; the network is used for a `hub:` name only."""
        if not self.hub and not (Path(self.location) / part).is_dir():
            raise self.error(f"it has no folder {part!r}")
        try:
            return cls.from_pretrained(self.location, subfolder=part, local_files_only=not self.hub, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise self.error(f"its {part} does not load ({reason[:200]})") from error

    def load_model(self, cls: type, part: str, **options: Any) -> Any:
        """Like `load`, for a part with weights; none of them may be missing, as it would silently be random."""
        model, report = self.load(cls, part, output_loading_info=True, **options)
        missing = sorted(report["missing_keys"])
        if missing:
            raise self.error(f"its {part} lacks {len(missing)} weights, the first is {missing[0]}")
        return model

    def error(self, reason: str) -> ModelError:
        return ModelError(
            f"model {self.name!r} cannot be used: {reason}; a FLUX model in the layout of FLUX.1-dev's diffusers "
            "folder is needed"
        )


def resolve(name: str) -> ModelSource:
    """`embedded`, a path of a diffusers folder, or `hub:owner/name` (the only form that uses the network).

    Raises:
        ModelError: neither of these.
    """
    if name == EMBEDDED:
        return ModelSource(name, str(tiny.FLUX), hub=False)
    if name.startswith(HUB):
        return ModelSource(name, name.removeprefix(HUB), hub=True)
    folder = Path(name).expanduser()
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"model {name!r}: no diffusers folder there (no model_index.json). Give the path of one, "
            f"{EMBEDDED!r} for the small model that comes with this project, or '{HUB}owner/name' to download"
        )
    return ModelSource(name, str(folder), hub=False)
