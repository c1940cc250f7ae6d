#!/usr/bin/env python3
"""Tries faults on the product, by the thousand, and writes docs/reliability.md with what came of them.

usage: python tests/reliability.py [--only NAME ...] [--share S]

Each subject is a module in tests/faults with `rows(share)`: the rows of its table, by `share` (0 to 1, default 1)
of the full numbers. `--only` replaces the tables of these subjects and leaves the others as they stand. The same
subjects run in `dev.py test` by a small share. Exit code 1 if a row lost something or showed a traceback.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
SUBJECTS = {
    "ends": "Kills, signals and errors during a run",
    "disks": "Disks",
    "checkpoints": "Damaged checkpoints",
    "texts": "Config files and prompts",
    "pictures": "Pictures",
    "weights": "LoRA and model files",
    "folders": "Run folders of strangers, and the board",
    "server": "The reward server and its client",
    "levels": "Memory and open files in a long run",
}
HEAD = """# Reliability

What a run, a file or a stranger can do wrong was done to the product, as often as the tables say. "Lost" counts what
was lost or changed beyond the iteration in progress, "tracebacks" how often a user would have read one.
`python tests/reliability.py` makes this page; `dev.py test` tries a small share of each row.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args(argv)
    sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / name) for name in ("", "card", "trainer", "host", "faults"))]
    tables, held = tables_of(PAGE.read_text("utf-8") if PAGE.exists() else ""), True
    for name in arguments.only:
        began, rows = time.monotonic(), list(import_module(name).rows(arguments.share))
        held = held and all(row.held for row in rows)
        tables[SUBJECTS[name]] = table(rows)
        print(f"{tables[SUBJECTS[name]]}\n{name}: {time.monotonic() - began:.0f} s", flush=True)
        PAGE.write_text(page(tables), "utf-8")
    return 0 if held else 1


def table(rows: Iterable) -> str:
    lines = ["| fault | times | lost | tracebacks | what came of it |", "|---|---|---|---|---|"]
    for row in rows:
        words = "; ".join(f"{text} ({n})" if len(row.outcomes) > 1 else text for text, n in row.outcomes.most_common(6))
        cells = (row.fault, f"{row.times:,}", str(row.lost), str(row.tracebacks), words.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tables_of(text: str) -> dict[str, str]:
    """The tables of a page by their titles."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return {title: body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def page(tables: dict[str, str]) -> str:
    """Of those of SUBJECTS that there are, in their order."""
    return HEAD + "".join(f"\n## {title}\n\n{tables[title]}\n" for title in SUBJECTS.values() if title in tables)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
