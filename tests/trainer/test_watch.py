"""A run that is watched: from its settings and its store to the end that a finding brings."""

import numpy as np
import pytest

from trainer.diagnosis import Record, diagnose
from trainer.diagnosis.watch import Watch
from trainer.events import IterationDone, Skipped
from trainer.settings.config_file import load_config
from trainer.store.reader import reading
from trainer.store.writer import open_store
from trainer.training.run import start_run

TWO_REWARDS = (
    "[[rewards]]\nkind = 'colourfulness'\nname = 'a'\n[[rewards]]\nkind = 'sharpness'\nname = 'h'\nheld_out=true"
)


@pytest.fixture
def settings(config_file):
    def settings(*overrides):
        return load_config(config_file(rewards=TWO_REWARDS), overrides)

    return settings


def test_a_record_reads_the_settings_that_a_run_stores(settings):
    r = Record.of({}, settings("grpo.strength=0.5", "grpo.clip=0.1").to_dict())
    assert (r.weights, r.held_out, r.prompts, r.prompts_per_iteration) == ({"a": 1.0}, ["h"], 3, 2)
    assert (r.group_size, r.strength, r.clip) == (4, 0.5, 0.1)
    assert Record.of({"strength": [(0, 0.5), (1, 0.25)]}, settings().to_dict()).strength == 0.25


def test_a_diagnosis_lists_what_it_finds_and_only_what_was_asked_for(settings):
    curves = {"diversity": [(i, 0.0) for i in range(6)], "clip_fraction": [(i, 0.9) for i in range(6)]}
    config = settings().to_dict()
    assert [f.check for f in diagnose(curves, config)] == ["trust-region", "mode-collapse"]
    assert [f.check for f in diagnose(curves, config, ["mode-collapse"])] == ["mode-collapse"]
    assert diagnose({}, config) == []


def done(iteration, **metrics):
    return IterationDone(iteration, metrics, [], [], {}, *[np.zeros((0, 2))] * 3)


def test_a_watch_ends_the_run_on_a_chosen_finding_only(settings, tmp_path):
    reasons = {"chosen": [], "other": [], "none": []}
    with open_store(tmp_path), reading(tmp_path) as store:
        chosen = Watch(settings("run.stop_on=['trust-region']").to_dict(), store, reasons["chosen"].append)
        other = Watch(settings("run.stop_on=['mode-collapse']").to_dict(), store, reasons["other"].append)
        none = Watch(settings().to_dict(), store, reasons["none"].append)
    for i in range(8):
        for watch in (chosen, other, none):
            watch(done(i, clip_fraction=0.1))
            watch(Skipped(i, "no reason"))
    assert reasons["chosen"] == []
    for watch in (chosen, other, none):
        watch(done(8, clip_fraction=0.8))
    (reason,) = reasons["chosen"]
    assert reason.startswith("stopped by trust-region: 80% of the objective's terms were clipped in iteration 8")
    assert reasons["other"] == reasons["none"] == []


def test_a_watch_knows_what_happened_before_the_run_was_resumed(settings, tmp_path):
    config = settings("run.stop_on=['mode-collapse']").to_dict()
    with open_store(tmp_path, tiles_every=0) as store:
        for i in range(3):
            store(done(i, diversity=1e-5))
    reasons = []
    with reading(tmp_path) as earlier:
        watch = Watch(config, earlier, reasons.append)
    assert reasons == []
    watch(done(3, diversity=1e-5))  # the fourth
    assert reasons[0].startswith("stopped by mode-collapse: ")


def test_a_run_ends_itself_saved_and_with_the_evidence(settings, tmp_path):
    config = settings(
        "run.stop_on=['trust-region']",
        "run.iterations=9",
        "grpo.updates_per_rollout=4",
        "grpo.clip=0.0001",
        "optimizer.learning_rate=0.05",
        "optimizer.warmup=0",
        "run.save_every=100",
    )
    reason = str(start_run(config)[0])
    assert reason.startswith("stopped by trust-region: ")
    with reading(tmp_path / "run") as store:
        done, info = len(store.curve("loss")), store.info()
        assert 0 < done < 9
        assert (info["state"], info["saved"]) == (reason, done)
