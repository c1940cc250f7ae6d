"""The alpha that a LoRA's file gives in its header: of diffusers, SimpleTuner and PEFT, or of kohya's scripts.

ComfyUI and diffusers scale a layer by alpha / rank if the file has an `.alpha` tensor for it. Others write it once, as
text: taken for 1, a LoRA of alpha = 4 x rank would begin at a quarter of its strength.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import brief
from .attach import lora_scale
from .targets import LoraError

ADAPTER = "lora_adapter_metadata"  # JSON of a peft.LoraConfig, each key perhaps with its component's name before it
COMPONENTS = ("transformer.", "unet.", "")
KOHYA = "ss_network_alpha"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT writes the same beside its file
MOST = 1e9  # of an alpha
LONGEST = 2**20  # bytes of such a file
PLAIN = re.compile(r"\^?[\w.\-]+")


@dataclass(frozen=True)
class Scales:
    """What layers without an alpha of their own are multiplied by."""

    alpha: float | None = None  # None: by 1
    variant: str = "lora"  # or "rslora"
    # ends of module paths, or whole ones after "^" -> alpha; the first one counts
    of_modules: Mapping[str, float] = field(default_factory=dict)

    def of(self, module: str, rank: int) -> float:
        """See `lora_scale`."""
        named = (
            a for end, a in self.of_modules.items() if module == end.removeprefix("^") or module.endswith(f".{end}")
        )
        alpha = next(named, self.alpha)
        return 1.0 if alpha is None else lora_scale(alpha, rank, self.variant)


def read_scales(path: Path, metadata: Mapping[str, str]) -> Scales:
    """What a file's header says, or the configuration that PEFT writes beside its own.

    Raises:
        LoraError: it gives an alpha that is no number, or one by an expression, which is not run.
    """
    if ADAPTER in metadata:
        return _of_config(path, metadata[ADAPTER])
    if path.name == PEFT_WEIGHTS and (path.parent / PEFT_CONFIG).is_file():
        with (path.parent / PEFT_CONFIG).open("rb") as file:
            return _of_config(path.parent / PEFT_CONFIG, file.read(LONGEST).decode("utf-8", "replace"))
    try:
        return Scales(_number(path, float(metadata[KOHYA])))
    except (KeyError, ValueError):  # none, or a word such as "Dynamic"
        return Scales()


def _of_config(path: Path, text: str) -> Scales:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoraError(f"{path}: its {ADAPTER} is no JSON ({brief(error)}): the file is damaged") from None
    config = config if isinstance(config, dict) else {}
    prefix = next((c for c in COMPONENTS if f"{c}lora_alpha" in config), None)
    if prefix is None:
        return Scales()
    patterns: Any = config.get(f"{prefix}alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise LoraError(f"{path}: its alpha_pattern is {brief(patterns)}: it must be a table")
    return Scales(
        _number(path, config[f"{prefix}lora_alpha"]),
        "rslora" if config.get(f"{prefix}use_rslora") is True else "lora",
        {_end(path, end): _number(path, alpha) for end, alpha in patterns.items()},
    )


def _end(path: Path, pattern: str) -> str:
    """The end of a module's path that a pattern of PEFT names. As an expression of a stranger it is never run."""
    plain = pattern.removesuffix("$").replace("\\.", ".")
    if not PLAIN.fullmatch(plain):
        raise LoraError(
            f"{path}: its alpha_pattern {brief(pattern)} is an expression, which is not run: save the LoRA with an "
            "alpha tensor for each layer"
        )
    return plain


def _number(path: Path, value: Any) -> float:
    usual = isinstance(value, int | float) and not isinstance(value, bool)
    if not usual or not abs(value) < MOST:  # which NaN is not either
        raise LoraError(f"{path}: its header's alpha is {brief(value)}: it must be a number")
    return float(value)
