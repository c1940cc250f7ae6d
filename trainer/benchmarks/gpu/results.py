"""What a check finds: values with their expected ranges, and what they come to."""

import math
from dataclasses import dataclass, field
from typing import Any, TypedDict

OK, DEVIATES, SKIPPED, FAILED = "ok", "deviates", "skipped", "failed"
BROKEN = 3  # exit code of a process to which the device answers no more


class Skipped(Exception):
    """A check, or a part of one, that cannot be done on this card: says why in one line."""


class Broken(Exception):
    """The device answers no more, as after an illegal memory access: nothing else can be checked by this process."""


def shown(value: float | str, unit: str) -> str:
    return f"{value if isinstance(value, str) else format(value, '.4g')} {unit}".rstrip()


class Bounds(TypedDict, total=False):
    """What a Value may be."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Value:
    """One measured value, and what is expected of it; nothing is if all three bounds are None."""

    name: str
    value: float | str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    equals: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the value is as expected. NaN never is, if anything is expected."""
        if self.equals is not None:
            return self.value == self.equals
        if isinstance(self.value, str):
            return self.low is None and self.high is None
        above = self.low is None or self.low <= self.value
        return above and (self.high is None or self.value <= self.high)

    @property
    def expected(self) -> str:
        if self.equals is not None:
            return self.equals
        if self.low is not None and self.high is not None:
            return f"{self.low:.4g} to {self.high:.4g}" if self.low != self.high else f"{self.low:.4g}"
        if self.low is not None:
            return f"at least {self.low:.4g}"
        return "" if self.high is None else f"at most {self.high:.4g}"

    def __str__(self) -> str:
        return shown(self.value, self.unit)

    def to_dict(self) -> dict[str, Any]:
        value = self.value if isinstance(self.value, str) or math.isfinite(self.value) else str(self.value)  # no JSON
        return {"name": self.name, "value": value, "unit": self.unit, "expected": self.expected, "ok": self.ok}


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    number: int
    name: str
    status: str
    values: list[Value] = field(default_factory=list)
    seconds: float = 0.0
    reason: str = ""  # why it deviates, was skipped or failed
    trace: str = ""  # of an exception
    cut: bool = False  # whether the budget was used up before its last value

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "seconds": round(self.seconds, 2), "values": [value.to_dict() for value in self.values]}

    def value(self, name: str) -> float | str | None:
        """The value of that name, None if the check did not get so far."""
        return next((value.value for value in self.values if value.name == name), None)


def judged(values: list[Value]) -> tuple[str, str]:
    """(status, reason) of a check that went through."""
    odd = [value for value in values if not value.ok]
    reason = "; ".join(f"{value.name} is {value}, expected {value.expected}" for value in odd)
    return (DEVIATES if odd else OK), reason
