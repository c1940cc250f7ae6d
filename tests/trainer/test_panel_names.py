"""The panel names no metric that a run does not write."""

import re
from pathlib import Path

import pytest

from trainer.events import IterationDone
from trainer.settings.config_file import load_config
from trainer.training.run import start_run

PANEL = Path(__file__).parents[2] / "web/panel"
PREFIXES = ("reward/", "reward_std/", "seconds/")


def labelled(text: str) -> set[str]:
    """The keys of the table of labels in format.mjs."""
    table = re.search(r"const METRICS = .*?\(\{\n(.*?)\n\}\);", text, re.DOTALL)[1]
    return {name for pair in re.findall(r'^  (?:"(.+?)"|(\w+)):', table, re.MULTILINE) for name in pair if name}


def charted(text: str) -> set[str]:
    """The metrics of the small charts in lines.mjs."""
    return {name for names in re.findall(r"names: \[(.*?)\]", text) for name in re.findall(r'"(.+?)"', names)}


def unwritten(named: set[str], written: set[str]) -> set[str]:
    return {n for n in named if not any(w == n or (n.endswith("/") and w.startswith(n)) for w in written)}


@pytest.mark.parametrize("device", ["card"], indirect=True)  # which has a memory to measure
def test_every_metric_that_the_panel_names_is_written_by_a_run(config_file):
    settings = ["grpo.kl_weight=0.1", "grpo.updates_per_rollout=2", "run.iterations=2"]
    events = []
    start_run(load_config(config_file(), settings), listeners=[events.append])
    written = {name for event in events if isinstance(event, IterationDone) for name in event.metrics}
    labels, charts = (
        labelled((PANEL / "format.mjs").read_text("utf-8")),
        charted((PANEL / "lines.mjs").read_text("utf-8")),
    )
    assert min(len(labels), len(charts)) > 10
    assert unwritten(labels | charts | {*PREFIXES}, written) == set()
    assert unwritten({"approx_kl", "loss", "seconds/", "hours/"}, written) == {"approx_kl", "hours/"}
