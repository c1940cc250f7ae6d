"""Cards and how fast they are: by their published figures, or by what `bench gpu` measured on one."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Card:
    """What a card reaches in large kernels."""

    name: str
    memory: float  # GiB
    bf16: float  # TFLOP/s of a matrix product, sums in float32
    fp8: float  # likewise of 8-bit numbers; as bf16 if the card does not multiply them
    float32: float  # likewise, without TF32
    bandwidth: float  # TB/s of its own memory, read and written
    host: float  # GB/s from page-locked host memory

    def __str__(self) -> str:
        return self.name


# The makers' figures (dense, without sparsity) times what large kernels reach of them: a GeForce 0.94 of its arithmetic
# and 0.91 of its bandwidth, a card for servers 0.8 and 0.87, as measured on an H200 (792 of 989 TFLOP/s, 4.18 of 4.8
# TB/s). From the host, 0.8 of PCIe 4 or 5. By memory, the slowest of a size first.
CARDS = (
    Card("4060", 8, 28, 57, 14, 0.25, 12.5),
    Card("3060", 12, 24, 24, 12, 0.33, 25),
    Card("4070", 12, 55, 110, 27, 0.46, 25),
    Card("4060 Ti", 16, 41, 83, 21, 0.26, 12.5),
    Card("4070 Ti Super", 16, 83, 166, 41, 0.61, 25),
    Card("4080", 16, 92, 183, 46, 0.65, 25),
    Card("3090", 24, 67, 67, 33, 0.85, 25),
    Card("4090", 24, 155, 310, 78, 0.92, 25),
    Card("5090", 32, 197, 394, 98, 1.63, 50),
    Card("L40S", 48, 290, 586, 73, 0.79, 25),
    Card("A100", 80, 250, 250, 16, 1.78, 25),
    Card("H100", 80, 790, 1580, 54, 2.9, 52),
    Card("H200", 139, 790, 1580, 54, 4.1, 52),
)

MEASURED = ("matrix product", "copy to the device", "copy within the device")  # by check 0 of `bench gpu`


def card_named(name: str) -> Card:
    """The card of a name such as "4090", "4070 Ti Super" or "NVIDIA H200".

    Raises:
        ConfigError: there is none in the table.
    """
    if (card := _known(name)) is None:
        remedy = "or --measured with what `bench gpu --out` wrote on it"
        raise ConfigError(f"--card {name}: must be one of {', '.join(c.name for c in CARDS)}, {remedy}")
    return card


def nearest(memory: float) -> Card:
    """The card whose memory is nearest to so many GiB; of several the slowest, so that nobody is promised too much."""
    return min(CARDS, key=lambda card: abs(card.memory - memory))


def measured(path: Path) -> Card:
    """The card of a file that `bench gpu --out` wrote: its rates as check 0 measured them.

    What was not measured (8 bits, float32) is taken from the table in the same proportion; of a card that is not in it,
    8-bit products are as fast as bf16, and float32 ones half as fast.

    Raises:
        ConfigError: the file cannot be read, or is no such file, or check 0 has not been run.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        name, memory = found["head"]["card"], float(found["head"]["memory_gib"])
        ground = _ground(found)
        bf16, host, bandwidth = (float(ground[value]) for value in MEASURED)
    except OSError as error:
        raise ConfigError(f"--measured {path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "made by: python -m trainer bench gpu --out FILE"
        raise ConfigError(f"--measured {path}: no rates of a card, as {remedy} ({error!r})") from error
    like = _known(name) or Card(name, memory, 1, 1, 0.5, 1, 1)
    share = bf16 / like.bf16
    rates = {"bf16": bf16, "fp8": like.fp8 * share, "float32": like.float32 * share}
    return replace(like, name=f"{name}, measured", memory=memory, bandwidth=bandwidth, host=host, **rates)


def _ground(found: dict[str, Any]) -> dict[str, float]:
    """Values of check 0, by name."""
    values = (value for check in found["checks"] if check["number"] == 0 for value in check["values"])
    return {value["name"]: value["value"] for value in values}


def _known(name: str) -> Card | None:
    """The card whose name is within this one, as in "NVIDIA GeForce RTX 4090"; the longest if several are."""
    inside = [card for card in CARDS if re.search(rf"(?<!\d){card.name}(?!\w)".replace(" ", " *"), name, re.IGNORECASE)]
    return max(inside, key=lambda card: len(card.name), default=None)
