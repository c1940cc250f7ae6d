"""Which iterations keep their pictures: run.keep_tiles."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import Run, write
from run_reading import read

from trainer.errors import ConfigError
from trainer.events import Evaluated, IterationDone
from trainer.history import groups, index
from trainer.history.export import write_json
from trainer.report.page import report
from trainer.settings.config_file import load_config
from trainer.settings.run import RunSettings
from trainer.store import retention
from trainer.store.database import created
from trainer.store.reader import Reader
from trainer.store.retention import AT_ONCE, LEAST, NEWEST, Retention, Rule
from trainer.store.schema import create
from trainer.store.writer import open_store
from trainer.training.run import start_run

PICTURES = 2  # of an iteration


def done(iteration: int) -> IterationDone:
    """One prompt, two candidates, of 16 x 16 pixels."""
    return IterationDone(
        iteration=iteration,
        metrics={"loss": 0.5},
        prompts=["a cat"],
        seeds=[iteration],
        scores={"clip": torch.tensor([[1.0, 2.0]])},
        advantages=torch.tensor([[-1.0, 1.0]]),
        anchors=torch.tensor([[True, False]]),
        images=torch.full((PICTURES, 3, 16, 16), 0.5),
    )


def train(folder: Path, iterations: range, keep: str) -> None:
    """As a run does that goes on from the first of the iterations."""
    with open_store(folder, keep_tiles=keep) as store:
        store.rewind(iterations.start)
        for iteration in iterations:
            store(done(iteration))


def on_disk(folder: Path) -> list[int]:
    """Iterations with files."""
    return sorted(int(path.name) for path in (folder / "tiles").iterdir())


@pytest.fixture
def budget(monkeypatch):
    """Set for how many iterations the pictures may stay, and how many of the newest ones stay anyway."""

    def set_budget(iterations: int, newest: int) -> None:
        monkeypatch.setattr(retention, "BUDGET", iterations * PICTURES * LEAST)
        monkeypatch.setattr(retention, "NEWEST", newest)

    return set_budget


# ---- the rules


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("all", [*range(12)]),
        ("auto", [*range(12)]),
        ("newest 3", [9, 10, 11]),
        ("newest 1", [11]),
        ("every 4", [0, 4, 8, 11]),
        ("every 1", [*range(12)]),
    ],
)
def test_files_and_rows_are_those_of_the_iterations_that_are_kept(tmp_path, keep, expected):
    train(tmp_path, range(12), keep)
    assert on_disk(tmp_path) == read(tmp_path, index).tiles == expected
    assert read(tmp_path, index).gone == 12 - len(expected)
    assert read(tmp_path, Reader.iterations) == [*range(12)]


@pytest.mark.parametrize(
    "keep", ["", "newest", "newest 0", "every -1", "every ten", "10", "Newest 5", "newest 5 ", "every 1.5", "none"]
)
def test_what_is_no_rule_is_told_with_the_remedy(keep):
    told = "^run.keep_tiles = .*: must be auto, all, or iterations such as 'newest 500' or 'every 10'$"
    with pytest.raises(ConfigError, match=told):
        RunSettings(keep_tiles=keep)


def after(rule: Rule, sizes: list[int], kept: dict[int, int], start: int = 0) -> tuple[Rule, dict[int, int]]:
    """The rule and the pictures once the iterations from `start` on, of these sizes, have been made."""
    for iteration, size in enumerate(sizes[start:], start):
        kept = kept | {iteration: size}
        rule = rule.thinned(kept)
        kept = {i: kept[i] for i in kept.keys() - set(rule.dropped(kept))}
    return rule, kept


SIZES = st.lists(st.integers(1, 100), min_size=1, max_size=150)


@settings(deadline=None, max_examples=200)
@given(SIZES, st.integers(200, 3000), st.sampled_from([1, 2, 8, 32]), st.data())
def test_auto_keeps_the_budget_the_whole_history_and_the_same_iterations_if_it_goes_on_from_anywhere(
    sizes, most, newest, data
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "BUDGET", most)
        rule, kept = after(Rule(newest, 1), sizes, {})
        last = len(sizes) - 1
        assert sum(kept.values()) <= most
        assert {0, last} <= kept.keys()
        assert kept.keys() >= set(range(last - rule.newest + 1, last + 1)) & {*range(last + 1)}
        old = [i for i in sorted(kept) if i <= last - rule.newest]
        assert old == [*range(0, last - rule.newest + 1, rule.every)]  # evenly, from the first one on
        assert rule.every.bit_count() == 1
        assert sum(sizes) > most or (rule.every == 1 and rule.newest == newest)
        back = data.draw(st.integers(0, last))  # a run that was killed goes on from here, with what is left
        resumed = after(rule, sizes, {i: size for i, size in kept.items() if i < back}, back)
        assert resumed == (rule, kept)


def test_ten_thousand_iterations_at_512_pixels_stay_within_a_gigabyte():
    """Twelve candidates of 84 kB each, as FLUX.1-dev's are: all of them would be 10 GB."""
    rule, kept, most = Rule(NEWEST, 1), {}, 0
    for iteration in range(10_000):
        kept[iteration] = 12 * 84_000
        rule = rule.thinned(kept)
        for gone in rule.dropped(kept):
            del kept[gone]
        most = max(most, sum(kept.values()))
    assert 2**29 < most <= 2**30
    assert [*kept] == [*range(0, 10_000 - NEWEST, 16), *range(10_000 - NEWEST, 10_000)]


def test_the_number_of_files_is_bounded_even_if_they_are_tiny(tmp_path, monkeypatch):
    """By a hundredth of the 65,536 of a whole run."""
    monkeypatch.setattr(retention, "BUDGET", retention.BUDGET // 100)
    files = []
    with created(tmp_path) as database:
        create(database)
        kept = Retention(tmp_path, database, "auto")
        for iteration in range(1000):
            folder = tmp_path / "tiles" / f"{iteration:06d}"
            folder.mkdir(parents=True)
            pictures = [folder / f"0-{n}.webp" for n in range(PICTURES)]
            for picture in pictures:
                picture.touch()
            with database:
                kept.add(iteration, pictures)
            kept.remove()
            files.append(PICTURES * len(kept.kept))
    assert max(files) <= 655
    left = on_disk(tmp_path)
    assert PICTURES * len(left) <= 655
    assert left == [*range(0, 872, 8), *range(872, 1000)]  # the newest alone would take more than half of it


def test_a_small_run_keeps_all_that_the_demo_draws():
    """300 iterations of 2 prompts with 12 candidates, base noises too, at their largest: 32 KiB each."""
    sizes = dict.fromkeys(range(300), 26 * 2 * LEAST)
    assert Rule(NEWEST, 1).thinned(sizes) == Rule(NEWEST, 1)


# ---- the store


def test_numbers_and_seeds_stay_and_readers_are_told_what_is_gone(tmp_path):
    train(tmp_path, range(4), "newest 1")
    (group,) = read(tmp_path, groups, 1)
    assert (group["gone"], group["seed"], group["base"]) == (True, "1", False)
    assert [(c["tile"], c["scores"], c["advantage"]) for c in group["candidates"]] == [
        (False, {"clip": 1.0}, -1.0),
        (False, {"clip": 2.0}, 1.0),
    ]
    assert read(tmp_path, groups, 3)[0]["gone"] is False
    assert "Iterations whose pictures are no longer kept (run.keep_tiles): 3." in report(tmp_path)
    with (tmp_path / "run.json").open("w") as file:
        read(tmp_path, write_json, file)
    exported = json.loads((tmp_path / "run.json").read_text())["groups"]
    assert [g["groups"][0]["gone"] for g in exported] == [True, True, True, False]


def test_the_base_noises_picture_goes_with_the_candidates_and_evaluations_stay(tmp_path):
    evaluated = Evaluated(0, ["a"], [1], {"clip": torch.ones(1)}, torch.zeros(1, 3, 16, 16))
    with open_store(tmp_path, keep_tiles="newest 1") as store:
        store(evaluated)
        store(replace(done(0), base=torch.zeros(1, 3, 16, 16)))
        assert read(tmp_path, groups, 0)[0]["base"] is True
        store(done(1))
    assert (read(tmp_path, groups, 0)[0]["base"], on_disk(tmp_path)) == (False, [1])
    assert [base for _, _, _, base, _ in read(tmp_path, Reader.groups, 0)] == [None]
    assert [path.name for path in (tmp_path / "evaluations/000000").iterdir()] == ["0.webp"]


def test_a_run_that_goes_on_keeps_what_one_keeps_that_was_never_interrupted(tmp_path, budget):
    budget(20, newest=8)
    train(tmp_path / "whole", range(100), "auto")
    train(tmp_path / "parts", range(70), "auto")
    train(tmp_path / "parts", range(55, 100), "auto")
    assert on_disk(tmp_path / "parts") == on_disk(tmp_path / "whole") == [*range(0, 92, 8), *range(92, 100)]
    assert read(tmp_path / "parts", index) == read(tmp_path / "whole", index)


def test_the_rule_may_change_when_a_run_goes_on(tmp_path):
    train(tmp_path, range(6), "all")
    train(tmp_path, range(6, 8), "every 3")
    assert on_disk(tmp_path) == [0, 3, 6, 7]
    train(tmp_path, range(8, 10), "all")
    assert on_disk(tmp_path) == [0, 3, 6, 7, 8, 9]
    assert read(tmp_path, index).gone == 4


def test_pictures_of_an_older_store_count_as_well(tmp_path, budget):
    folder = write(tmp_path / "run", Run(iterations=8, prompts=("a",), group_size=PICTURES))
    budget(5, newest=2)
    train(folder, range(8, 9), "auto")
    assert on_disk(folder) == read(folder, index).tiles == [0, 4, 7, 8]


def test_steps_by_hand_open_the_store_each_time_and_are_thinned_out_alike(tmp_path, budget):
    budget(10, newest=4)
    for iteration in range(40):
        with open_store(tmp_path) as store:
            store(done(iteration))
    assert on_disk(tmp_path) == [0, 8, 16, 24, 32, 36, 37, 38, 39]


# ---- files that stay


def test_a_file_that_cannot_be_removed_ends_nothing_and_is_tried_again(tmp_path, monkeypatch):
    unlink = Path.unlink
    held = {tmp_path / "tiles/000000/0-1.webp"}

    def refuse(path, missing_ok=False):
        if path in held:
            raise PermissionError(13, "it is open elsewhere", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with open_store(tmp_path, keep_tiles="newest 1") as store:
        store(done(0))
        store(done(1))
        assert [p.name for p in tmp_path.glob("tiles/000000/*")] == ["0-1.webp"]
        assert (read(tmp_path, index).tiles, read(tmp_path, index).gone) == ([1], 1)
        store(done(2))
        held.clear()
        store(done(3))
        assert on_disk(tmp_path) == [3]


def test_what_could_not_be_removed_is_tried_again_when_the_store_is_opened_the_next_time(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(retention, "remove_pictures", lambda folder: False)
        train(tmp_path, range(3), "newest 1")
    assert (on_disk(tmp_path), read(tmp_path, index).tiles) == ([0, 1, 2], [2])
    train(tmp_path, range(3, 3), "newest 1")
    assert on_disk(tmp_path) == [2]


def test_many_stuck_folders_cost_an_iteration_a_few_tries_only(tmp_path, monkeypatch):
    tried = []
    train(tmp_path, range(AT_ONCE + 5), "all")
    monkeypatch.setattr(retention, "remove_pictures", lambda folder: tried.append(folder.name) and False)
    with open_store(tmp_path, keep_tiles="newest 1") as store:
        store(done(AT_ONCE + 5))
        assert len(tried) == AT_ONCE
        store(done(AT_ONCE + 6))
        assert len(tried) == 2 * AT_ONCE
        assert set(tried) >= {f"{i:06d}" for i in range(AT_ONCE + 5)}  # nobody waits for ever


def test_links_and_files_that_are_no_pictures_stay(tmp_path):
    train(tmp_path / "run", range(2), "all")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "run/tiles/000000").rename(elsewhere)
    (tmp_path / "run/tiles/000000").symlink_to(elsewhere)
    (tmp_path / "run/tiles/000001/notes.txt").write_text("mine")
    train(tmp_path / "run", range(2, 3), "newest 1")
    assert sorted(p.name for p in elsewhere.iterdir()) == ["0-0.webp", "0-1.webp"]
    assert [p.name for p in (tmp_path / "run/tiles/000001").iterdir()] == ["notes.txt"]
    assert read(tmp_path / "run", index).tiles == [2]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(15))
def test_a_run_that_is_killed_at_any_point_leaves_no_file_behind_once_it_goes_on(tmp_path, monkeypatch, step):
    """Five iterations lose their pictures: two files and a folder each."""
    train(tmp_path, range(3), "all")
    left = [step]

    def dying(function):
        def act(*arguments, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*arguments, **options)

        return act

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        with pytest.raises(Killed):
            train(tmp_path, range(3, 6), "newest 1")
    rows = read(tmp_path, index)
    assert set(rows.tiles) <= {*on_disk(tmp_path)}  # nobody is promised a picture that is gone
    train(tmp_path, range(3, 6), "newest 1")
    assert on_disk(tmp_path) == read(tmp_path, index).tiles == [5]


# ---- runs


def test_a_training_keeps_to_it_and_goes_on_with_another_rule(config_file, tmp_path):
    config = load_config(config_file(), ["run.keep_tiles=newest 1", "run.base_every=1"])
    start_run(config)
    folder = tmp_path / "run"
    assert on_disk(folder) == read(folder, index).tiles == [2]
    assert read(folder, groups, 0)[0]["gone"] is True
    more = replace(config, run=replace(config.run, iterations=5, keep_tiles="all"))
    start_run(more, resume=True)
    assert on_disk(folder) == [2, 3, 4]
