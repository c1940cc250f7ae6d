"""Experiments: runs at equal time from the same base, rows that outlive a kill, and what is said of them."""

import csv
import math
import threading
from dataclasses import replace

import pytest
import torch

from trainer.__main__ import main
from trainer.experiments import bench as benches
from trainer.experiments import sheet, sooner, summary, trials
from trainer.experiments.bench import Bench
from trainer.experiments.catalogue import EXPERIMENTS, Arm, Experiment
from trainer.experiments.fingerprint import changed, fingerprint
from trainer.experiments.sheet import Row
from trainer.experiments.tasks import TASKS, Task, preset
from trainer.settings.config import GrpoSettings
from trainer.settings.presets import PRESETS

HELD_OUT = '[[rewards]]\nkind = "colourfulness"\n[[rewards]]\nkind = "sharpness"\nheld_out = true'
WATCHED = "prompts = ['a blue bird', 'a green tree']"


def row(arm: str = "a", rate: float = 1e-3, seed: int = 0, mark: int = 1, **values) -> Row:
    known = {"iterations": 5, "seconds": 10.0, "trained": 0.1, "trained_se": 0.01, "held_out": 0.05}
    known |= {"held_out_se": 0.02, "before": 0.4, "metrics": {"kl_old": 0.25}}
    return Row("task", arm, rate, seed, "0a1b", mark, **{**known, **values})


@pytest.fixture
def task(config_file) -> Task:
    """Two prompts on the small random FLUX, tested on two others."""
    path = config_file(grpo="group_size = 4\nanchors = 2\ntrained_steps = 2", rewards=HELD_OUT, evaluation=WATCHED)
    return Task("small", path, pictures=2)


def test_rows_come_back_as_they_were_written(tmp_path):
    path, rows = tmp_path / "of" / "x.csv", [row(mark=1), row(mark=2, metrics={})]
    sheet.add(path, rows)
    sheet.add(path, [row("b, with a comma", seed=1)])
    assert sheet.read(path) == [*rows, row("b, with a comma", seed=1)]
    assert path.read_text().count("task,arm") == 1
    assert sheet.read(tmp_path / "none.csv") == []


def test_several_write_into_one_table(tmp_path):
    path = tmp_path / "x.csv"
    sheet.add(path, [row(seed=99)])
    writers = [
        threading.Thread(target=lambda s=s: sheet.add(path, [row(seed=s, mark=m) for m in (1, 2)])) for s in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with path.open() as file:
        assert len(list(csv.reader(file))) == 1 + 1 + 16
    assert {r.run[3] for r in sheet.read(path)} == {*range(8), 99}


def test_an_arm_is_judged_by_its_best_rate_at_the_end_over_its_seeds():
    rows = [row("a", 1e-3, s, mark=2, trained=t) for s, t in enumerate((0.1, 0.2, 0.3))]
    rows += [row("a", 1e-3, s, mark=1, trained=9.0) for s in range(3)]  # not the end
    rows += [row("a", 1e-2, s, trained=0.15) for s in range(3)]
    assert summary.results(rows[::-1])[0].trained.value == pytest.approx(0.2)
    (found,) = summary.results(rows)
    assert (found.rate, found.seeds) == (1e-3, 3)
    assert found.trained.value == pytest.approx(0.2)
    assert found.trained.of_seeds == pytest.approx(0.1 / math.sqrt(3))
    assert found.trained.error == pytest.approx(math.hypot(0.1 / math.sqrt(3), 0.01))


def test_arms_are_compared_seed_by_seed():
    """Each seed has its own level, and the difference is certain although the levels are not."""
    levels = (0.1, 0.5, 0.9)
    rows = [
        row(arm, seed=s, trained=level + more)
        for arm, more in (("a", 0), ("b", 0.01))
        for s, level in enumerate(levels)
    ]
    one, other = summary.results(rows)
    more = summary.paired(rows, other, one)
    assert more.value == pytest.approx(0.01)
    assert more.of_seeds == pytest.approx(0, abs=1e-9)
    text = summary.paragraph("What?", rows)
    assert text.startswith("What? On task, b reached most: +0.510")
    assert "beyond chance" in text
    noisy = [*rows[:3], *(replace(r, trained=r.trained + d) for r, d in zip(rows[3:], (0.2, -0.3, 0.1), strict=True))]
    assert "within chance" in summary.paragraph("What?", noisy)
    assert "| task | b | 0.001 | 5 | 10 | +0.510" in summary.table(summary.results(rows))


def test_how_much_sooner_is_read_between_the_tests():
    """0.06 lies three fifths between nothing at 0 s and 0.1 at 10 s, or half between 0.02 and 0.1."""
    rows = [row("a", seed=0, seconds=10.0, trained=0.1, held_out=0.05)]
    rows += [row("a", seed=1, mark=m, seconds=10.0 * m, trained=t, held_out=t) for m, t in ((1, 0.02), (2, 0.1))]
    rows += [row("b", seed=s, seconds=60.0, trained=0.06, held_out=0.01) for s in (0, 1)]
    one, other = summary.results(rows)
    found = sooner.sooner(rows, one, other)
    assert found.seconds == pytest.approx((6, 15))
    assert found.held_out == pytest.approx((0.03, 0.06))
    assert found.ratio == pytest.approx(60 / 10.5)
    text = sooner.in_words(rows, [other, one])
    assert text == "a on task: b's +0.060 it has after 6.0 to 15.0 s, 5.7 times sooner, held out +0.045 against +0.010."


def test_what_was_never_reached_and_what_raised_nothing():
    rows = [row("a", trained=0.1), row("b", trained=0.2), row("c", trained=-0.1)]
    a, b, c = summary.results(rows)
    assert sooner.sooner(rows, a, b).ratio == 0
    assert "b's +0.200 it has not reached" in str(sooner.sooner(rows, a, b))
    assert sooner.sooner(rows, a, c) is None
    assert sooner.in_words([rows[0]], [a]) == ""
    near = row("near", trained=0.199)
    text = sooner.in_words([*rows, near], [a, b, *summary.results([near])])
    assert [sentence.split(" on ")[0] for sentence in text.split(". ")] == ["b", "near"]
    assert text.count("a's +0.100 it has") == 2
    dips = [row("d", mark=m, seconds=10.0 * m, trained=t) for m, t in ((1, 0.3), (2, 0.0), (3, 0.3))]
    assert sooner.crossing(dips, 0.15)[0] == pytest.approx(5)  # the first time counts


@pytest.fixture
def counted(monkeypatch, task) -> list:
    """The runs that were begun, each as its last override and its seed; the third is killed. None of them trains."""
    done = []

    class Counted:
        def __init__(self, task, overrides):
            self.task, self.config = task, task.config()

        def run(self, overrides, seed, budget, marks, **options):
            done.append((overrides[-1], seed))
            if len(done) == 3:
                raise KeyboardInterrupt
            found = replace(DIFFERENCE, difference=BETTER if "0.01" in overrides[-1] else DIFFERENCE.difference)
            yield benches.Mark(1, budget, {"colourfulness": found, "sharpness": DIFFERENCE}, {})

    monkeypatch.setattr(trials, "Bench", Counted)
    return done


def silent(*named) -> None:
    pass


def test_what_is_done_is_not_done_again(counted, task, tmp_path):
    other = Arm("b", ["grpo.strength=0.7"], rates=(1e-3,))
    experiment = Experiment("?", [Arm("a", rates=(1e-3, 1e-2)), other])
    plan, path = trials.Plan([task], [0, 1], 1.0, 1), tmp_path / "x.csv"
    with pytest.raises(KeyboardInterrupt):
        trials.run(experiment, plan, path, silent)
    assert len(sheet.read(path)) == 2
    trials.run(experiment, plan, path, silent)
    assert len(counted) == 6  # five runs, one of them begun twice
    # all rates at the first seed, and then the one that was best
    assert [r.run[1:] for r in sheet.read(path)] == [
        ("a", 1e-3, 0),
        ("a", 1e-2, 0),
        ("b", 1e-3, 0),
        ("a", 1e-2, 1),
        ("b", 1e-3, 1),
    ]
    trials.run(experiment, plan, path, silent)
    assert len(counted) == 6


def test_a_run_belongs_to_its_settings(counted, task, tmp_path):
    """An arm with other settings is run again, and one with the same settings is taken from the table beside."""
    counted.extend([None] * 3)  # none is killed
    arm = Arm("a", ["grpo.strength=0.7"], rates=(1e-3,))
    plan, path = trials.Plan([task], [0], 1.0, 1), tmp_path / "x.csv"
    (known,) = trials.run(Experiment("?", [arm]), plan, path, silent)
    beside = trials.run(Experiment("?", [replace(arm, name="b")]), plan, tmp_path / "y.csv", silent)
    assert beside == [replace(known, arm="b")]
    assert len(counted) == 4
    others = [
        (replace(arm, overrides=["grpo.strength=0.6"]), plan),
        (replace(arm, noise=("pure", 1.0)), plan),
        (replace(arm, marks=2), plan),
        (arm, replace(plan, budget=2.0)),
        (arm, replace(plan, overrides=["lora.rank=2"])),
    ]
    for n, (other, anew) in enumerate(others, 5):
        (found,) = trials.run(Experiment("?", [other]), anew, path, silent)
        assert found.settings != known.settings
        assert len(counted) == n
    assert trials.run(Experiment("?", [arm]), plan, path, silent) == [known]
    assert len(counted) == 9


def test_a_fingerprint_is_of_what_was_chosen(task):
    """The default said aloud is no other run; where the files are, the seed and the rate are told elsewhere."""
    word = fingerprint(task.config())
    assert fingerprint(task.config(["grpo.quasi_norm=0.8", "run.seed=3", "run.folder=x"])) == word
    assert fingerprint(task.config(["optimizer.learning_rate=0.5"])) == word
    changes = [
        "grpo.quasi_norm=0.9",
        "model.text_tokens=7",
        "rewards.0.weight=2.0",
        "prompts=['a']",
        "run.micro_batch=2",
    ]
    assert len({word, *(fingerprint(task.config([change])) for change in changes)}) == 1 + len(changes)
    assert fingerprint(task.config(), 1.0) != word


def test_a_setting_at_its_default_is_not_told_so_that_one_added_later_changes_no_fingerprint():
    assert changed(GrpoSettings(), ()) == {}
    assert changed(GrpoSettings(anchors=2, hold=1.0), ("hold",)) == {"anchors": 2}


def test_a_table_of_another_kind_has_no_runs(tmp_path):
    path = tmp_path / "solver.csv"
    path.write_text("solver,steps\neuler,8\n")
    sheet.add(tmp_path / "x.csv", [row()])
    assert sheet.read(path) == []
    assert sheet.beside(tmp_path / "y.csv") == [row()]


DIFFERENCE = benches.Difference(0.5, 0.6, 0.1, 0.01)
BETTER = 0.2


def test_runs_begin_from_the_same_model_and_repeat_by_seed(task):
    bench = Bench(task)
    overrides = ["optimizer.learning_rate=1e-2", "optimizer.warmup=0"]

    def trained(**options):
        setup = bench.setup(bench.task.config([*overrides, "run.seed=0"]), **options)
        watch = benches.Stopwatch(torch.device("cpu"))
        return setup, bench.train(setup, benches.new_state(setup), watch, 1e-9), watch

    first, metrics, watch = trained()
    after = bench.test(first)
    again = bench.test(trained()[0])
    untouched = bench.test(bench.setup(bench.task.config(["run.seed=0"])))
    assert after == again
    assert all(d.difference == 0 for d in untouched.values())
    assert after["colourfulness"].difference != 0
    assert after["sharpness"].before == untouched["sharpness"].before
    assert watch.seconds > 0
    assert metrics["grad_norm"] > 0
    # a disturbed reward is trained on, and not tested by
    assert bench.test(trained(noise=("pure", 1.0))[0]) != after
    assert bench.test(bench.setup(bench.task.config(["run.seed=0"]), ("pure", 1.0))) == untouched


def test_marks_lie_at_equal_shares_of_the_budget(task):
    budget = 1.0
    marks = list(Bench(task).run(["optimizer.warmup=0"], 0, budget, 3, steps=(1, 2)))
    assert [m.iterations for m in marks] == sorted(m.iterations for m in marks)
    assert all(mark.seconds >= budget * n / 3 for n, mark in enumerate(marks, 1))
    assert marks[0].differences.keys() == {"colourfulness@1", "colourfulness@2", "sharpness@1", "sharpness@2"}


def test_arms_are_settings_that_there_are():
    for experiment in EXPERIMENTS.values():
        for name in experiment.tasks:
            for arm in trials.arms_of(experiment, TASKS[name]):
                config = TASKS[name].config([*arm.overrides, "optimizer.learning_rate=1e-3"])
                assert config.weights
                assert not set(config.prompts) & set(config.evaluation.prompts)


def test_an_arms_preset_takes_the_place_of_the_tasks():
    assert TASKS["scenes"].config().grpo.hold > 0
    assert TASKS["scenes"].config([preset("defaults")]).grpo.hold == 0
    for name, known in PRESETS.items():
        config = TASKS["scenes"].config([preset(name)])
        for section, its in known.defaults.items():
            for key, value in its.items():
                if section != "model":
                    assert getattr(getattr(config, section), key) == value


def test_a_command_leaves_table_picture_and_text(task, tmp_path, capsys):
    words = ["experiment", "antithetic", "--quick", "--config", str(task.file), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    text = (tmp_path / "out" / "antithetic.md").read_text("utf-8")
    assert text in capsys.readouterr().out
    assert "On config, " in text
    assert (tmp_path / "out" / "antithetic.png").stat().st_size > 10_000
    assert {r.arm for r in sheet.read(tmp_path / "out" / "antithetic.csv")} == {"free", "antithetic"}


@pytest.mark.parametrize("words", [["strength", "--seeds", "0,x"], ["strength", "--config", "none.toml"]])
def test_a_mistake_is_one_line(words, capsys):
    assert main(["experiment", *words, "--quick"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
