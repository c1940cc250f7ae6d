"""The checks on real trainings of the embedded model, healthy and sick ones: see tests/record_runs.py.

What became of a run is known independently of its curves: 24 fixed pictures were scored before and after it.
The thresholds were set while looking at the sick runs and at healthy 00 to 09; healthy 10 to 19 were not looked at.
"""

import functools
import json
from pathlib import Path

import pytest

from trainer.diagnosis import CHECKS, diagnose

RUNS = {run["name"]: run for run in map(json.loads, (Path(__file__).parent / "recorded" / "runs.jsonl").open())}
HEALTHY = sorted(name for name, run in RUNS.items() if not run["sickness"])
SICK = sorted(RUNS.keys() - set(HEALTHY))
# found while it lasted, and over before the run's end: the policy broke altogether afterwards
PASSING = {"collapse: plain pictures"}
FALSE_ALARMS = {"healthy 15": {"trust-region"}}


def length(run: dict) -> int:
    return max(map(len, run["curves"].values()))


def checked(name: str, iterations: int) -> dict:
    """The findings after so many iterations, by check."""
    run = RUNS[name]
    rewards = [{"name": label, "kind": "", "weight": w, "held_out": False} for label, w in run["weights"].items()]
    rewards += [{"name": label, "kind": "", "weight": 1.0, "held_out": True} for label in run["held_out"]]
    settings = {"rewards": rewards, "prompts": run["prompts"], "grpo": run["settings"]["grpo"]}
    curves = {metric: list(enumerate(values[:iterations])) for metric, values in run["curves"].items()}
    return {finding.check: finding for finding in diagnose(curves, settings)}


@functools.cache
def ever(name: str) -> frozenset[str]:
    """What was found after any of its iterations: what a run would have ended itself on."""
    return frozenset(check for n in range(1, length(RUNS[name]) + 1) for check in checked(name, n))


def rise(name: str, reward: str) -> float:
    """Of the fixed pictures' scores, in standard errors."""
    tested = RUNS[name]["tested"][reward]
    return tested["difference"] / tested["standard_error"]


def test_there_are_twenty_healthy_runs_and_a_sick_one_for_each_check():
    assert len(HEALTHY) == 20
    assert {RUNS[name]["sickness"] for name in SICK} == set(CHECKS)
    assert len({tuple(RUNS[name]["prompts"]) for name in HEALTHY}) == 20


@pytest.mark.parametrize("name", SICK)
def test_a_sick_run_is_recognised(name):
    sickness = RUNS[name]["sickness"]
    assert sickness in ever(name)
    if name not in PASSING:
        assert sickness in checked(name, length(RUNS[name]))


def test_healthy_runs_raise_one_alarm_in_all_their_iterations():
    """All six checks after each of the 720 iterations: one run of twenty has a false alarm, in its last iteration."""
    alarms = {name: set(ever(name)) for name in HEALTHY if ever(name)}
    assert alarms == FALSE_ALARMS


@pytest.mark.parametrize("name", [name for name in SICK if name.startswith("hacking")])
def test_what_is_called_hacking_was_hacking(name):
    assert rise(name, next(iter(RUNS[name]["weights"]))) > 5
    assert rise(name, RUNS[name]["held_out"][0]) < -5


@pytest.mark.parametrize("name", [name for name in SICK if name.startswith("trust")])
def test_what_is_called_out_of_the_trust_region_was_ruined(name):
    assert rise(name, "tiny-clip") < -5
    assert rise(name, "tiny-clip-heldout") < -5


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_called_healthy_gained_or_lost_next_to_nothing(name):
    """The held-out score of the sick runs fell by 0.5 and more."""
    assert RUNS[name]["tested"]["tiny-clip"]["difference"] > 0
    assert RUNS[name]["tested"]["tiny-clip-heldout"]["difference"] > -0.05


def test_the_healthy_runs_learned_something():
    """Together, where each alone is short."""
    rises = [rise(name, "tiny-clip") for name in HEALTHY]
    assert sum(rises) / len(rises) ** 0.5 > 5
