"""What the checks came to, for people and for machines. It needs no torch: whoever reports computes nothing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...files import written_whole
from .results import DEVIATES, FAILED, SKIPPED, shown

Row = Mapping[str, Any]  # a Result's `to_dict`


class Report:
    """Tells each check's row as it comes; with `out`, everything so far is on disk as one JSON file."""

    def __init__(self, out: Path | None, as_json: bool, say: Callable[[str], None]):
        self.out, self.as_json, self.say = out, as_json, say
        self.facts: dict[str, Any] = {}
        self.rows: dict[int, Row] = {}

    def begin(self, facts: dict[str, Any]) -> None:
        """The card and what drives it. A second process on the same card has nothing new to say."""
        if not self.facts:
            self.facts = facts
            self.say(json.dumps({"head": facts}) if self.as_json else headline(facts))

    def add(self, row: Row) -> None:
        self.rows[row["number"]] = row
        self.say(json.dumps(row) if self.as_json else "\n".join(lines(row)))
        if self.out:
            with written_whole(self.out) as partial:
                partial.write_text(
                    json.dumps({"head": self.facts, "checks": list(self.rows.values())}, indent=1), "utf-8"
                )

    def end(self) -> int:
        """Returns 0 if everything that ran is as expected, else 1."""
        if not self.as_json:
            self.say(summary(list(self.rows.values())))
        return 0 if all_well(list(self.rows.values())) else 1


def headline(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)


def lines(row: Row) -> list[str]:
    """A result for people; a star marks what is not as expected."""
    head = f"{row['number']:>2}  {row['name']:<20} {row['status']:<9}{row['seconds']:>6.1f} s"
    reason = f"  {row['reason']}" if row["status"] in (SKIPPED, FAILED) or row["cut"] else ""
    found = [f"{head}{reason}"]
    for value in row["values"]:
        expected = f"  (expected {value['expected']})" if value["expected"] else ""
        text = shown(value["value"], value["unit"])
        found.append(f"  {' ' if value['ok'] else '*'} {value['name']:<58} {text:>16}{expected}")
    return found


def summary(rows: list[Row]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def all_well(rows: list[Row]) -> bool:
    return not any(row["status"] in (DEVIATES, FAILED) for row in rows)
