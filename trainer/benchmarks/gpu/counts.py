"""The planner's counts, against which a card's memory is held: made here, or elsewhere by `plan --json`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...models.storage.memory import MemoryPlan
from ...planning.advice import title
from ...planning.phases import predict
from ...settings.config import Config

PHASES = ("rollout", "decode", "reward", "update")  # those of an iteration
LOADED = ("load", *PHASES)  # those with the transformer on the device


@dataclass(frozen=True)
class Case:
    """A memory plan at a size of pictures, and a micro-batch of both rollout and update, which keep no inputs."""

    memory: str
    offload: float
    pixels: int
    micro_batch: int

    @property
    def plan(self) -> MemoryPlan:
        return MemoryPlan(self.memory, self.offload)

    def __str__(self) -> str:
        return f"{title(self.plan)}, {self.pixels} px, micro-batch {self.micro_batch}"


class Counts:
    """Bytes on the device at the peak of each phase, for each case."""

    def __init__(self, files: Sequence[Path] = ()):
        self.known: dict[Case, dict[str, int]] = {}
        for path in files:
            self._read(path)

    def of(self, case: Case, config: Config) -> dict[str, int]:
        """The phases' peaks; counted by the planner, from `config`, if no file had them."""
        if case not in self.known:
            self.known[case] = {name: peak.device for name, peak in predict(config, case.plan).items()}
        return self.known[case]

    def _read(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text("utf-8"))
            for report in found if isinstance(found, list) else [found]:
                self._take(report)
        except OSError as error:
            raise ConfigError(f"--plans {path}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            remedy = "made by: python -m trainer plan --json"
            raise ConfigError(f"--plans {path}: no counts of plans, as {remedy} ({error!r})") from error

    def _take(self, report: dict[str, Any]) -> None:
        width, height = report["size"]
        for plan in report["plans"]:
            alike = plan.get("rollout_batch") in (None, plan["micro_batch"]) and not plan.get("keep_inputs")
            if width == height and alike and not plan["estimated"]:
                case = Case(plan["memory"], float(plan["offload"]), width, plan["micro_batch"])
                self.known[case] = {name: int(peak["device"]) for name, peak in plan["phases"].items()}
