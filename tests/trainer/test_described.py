"""What is said of a setting once: its range in words and in checks, what is stored of it, what may change."""

import json
import math
from dataclasses import dataclass, fields, replace

import pytest

from trainer.errors import ConfigError
from trainer.reward_server.config import ServerSettings
from trainer.settings.config import SECTIONS, Config, GrpoSettings, ModelSettings, RewardSettings
from trainer.settings.described import KEY, Section, Setting, described, plain, setting
from trainer.training.run_folder import completed, differences

ALL = [*SECTIONS.values(), RewardSettings, ServerSettings]
EVERY = {f"{section.section}.{f.name}": described(section, f.name) for section in ALL for f in fields(section)}
RANGES = [  # what is known; what is taken, what is not; in words
    ({"least": 1}, [1, 2, 1e9], [0, 0.99, -5, math.nan], "at least 1"),
    ({"above": 0}, [1e-9, 5], [0, -1], "above 0"),
    ({"above": 0, "most": 2}, [0.1, 2], [0, 2.1, math.nan], "above 0 and at most 2"),
    ({"least": 0, "below": 1}, [0, 0.999], [-0.1, 1], "at least 0 and below 1"),
    ({"least": 0, "most": 1, "unit": "second"}, [0, 0.5, 1], [1.5, -1], "between 0 and 1 second"),
    ({"least": 2, "unit": "byte"}, [2], [1], "at least 2 bytes"),
    ({"unit": "pixel"}, [-1, 5], [], "pixels"),
    ({}, ["", "anything", 3, True, {}], [], ""),
    ({"choices": ("a", "b")}, ["a", "b"], ["c", ""], "one of a, b"),
    ({"choices": ("a", "b"), "others": "a letter"}, ["a", "c"], [], "a, b or a letter"),
    ({"choices": ("a", "b"), "own": True}, ["b", "m:A"], ["c"], "one of a, b, or 'package.module:Class'"),
    ({"above": 0, "choices": ("auto",)}, ["auto", 1], ["car", 0], "a number above 0, or 'auto'"),
    ({"least": 2, "why": "they are compared"}, [2], [1], "at least 2"),
]


@pytest.mark.parametrize(("known", "taken", "refused", "words"), RANGES, ids=[words or "any" for *_, words in RANGES])
def test_a_range_is_checked_as_it_is_told(known, taken, refused, words):
    told = Setting("", **known)
    assert told.range == words
    for value in taken:
        told.check("toy.name", value)
    for value in refused:
        with pytest.raises(ConfigError) as caught:
            told.check("toy.name", value)
        why = f": {known['why']}" if "why" in known else ""
        assert str(caught.value) == f"toy.name = {value!r}: must be {words}{why}"


@dataclass(frozen=True)
class Toy(Section, section="toy"):
    size: int = setting(3, "How large it is.", least=1)
    family: str = setting("old", "Which one.", choices=("old", "new"), omit_default=True)
    words: tuple[str, ...] = setting((), "Some words.", choices=("yes", "no"))

    def check(self) -> None:
        if self.size > 5 and self.family == "old":
            raise ConfigError("toy.size: the old ones are small")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "toy.size = 0: must be at least 1"),
        ({"words": ("yes", "maybe")}, "toy.words = 'maybe': must be one of yes, no"),
        ({"size": 6}, "toy.size: the old ones are small"),
        ({"size": 0, "family": "older"}, "toy.size = 0"),
    ],
)
def test_a_section_checks_each_of_its_settings_and_then_its_own_rules(values, message):
    with pytest.raises(ConfigError, match=message):
        Toy(**values)
    assert Toy(size=6, family="new", words=("no", "yes")).size == 6


def test_a_default_that_older_versions_do_not_know_is_not_stored():
    assert list(plain(Toy()).items()) == [("size", 3), ("words", ())]
    assert list(plain(Toy(family="new")).items()) == [("size", 3), ("family", "new"), ("words", ())]
    assert plain((Toy(4), Toy(family="new")))[0] == {"size": 4, "words": ()}


def test_names_of_family_and_objective_are_stored_if_they_are_others():
    assert not {"family", "objective"} & {*stored()["model"], *stored()["grpo"]}
    assert stored(objective="m:A")["grpo"]["objective"] == "m:A"


@pytest.fixture
def added(monkeypatch):
    """A version of the settings in which grpo.clip is new."""
    new = {KEY: replace(described(GrpoSettings, "clip"), omit_default=True)}
    monkeypatch.setattr(GrpoSettings.__dataclass_fields__["clip"], "metadata", new)


def stored(**grpo: object) -> dict:
    config = Config(ModelSettings("m"), ("a",), (RewardSettings("r"),), grpo=GrpoSettings(**grpo))
    return json.loads(json.dumps(config.to_dict()))


def test_a_run_of_an_older_version_goes_on_with_a_setting_that_was_added(added):
    assert "clip" not in stored()["grpo"]
    assert stored(clip=0.3)["grpo"]["clip"] == 0.3
    with_it, without = {**stored(), "grpo": {**stored()["grpo"], "clip": 0.2}}, stored()
    for old, new in ((with_it, without), (without, with_it), (without, without)):
        assert differences(completed(old), completed(new)) == []
    assert differences(completed(without), completed(stored(clip=0.3))) == ["grpo.clip was 0.2, is 0.3"]
    assert differences(completed(stored(clip=0.3)), completed(without)) == ["grpo.clip was 0.3, is 0.2"]


MAY_CHANGE = """model.memory model.offload model.matmul model.compile model.checkpointing model.keep_inputs
run.folder run.iterations run.save_every run.tiles_every run.keep_tiles run.offload_rewards run.base_every run.stop_on
evaluation.prompts evaluation.every"""


def test_a_run_goes_on_with_other_values_of_what_no_iteration_depends_on():
    old = completed(stored())
    free = []
    for name in SECTIONS:
        for key in old[name]:
            new = {**old, name: {**old[name], key: "another"}}
            free += [f"{name}.{key}"] if not differences(old, new) else []
    assert sorted(free) == sorted(MAY_CHANGE.split())


def test_a_rewards_server_may_move_but_not_its_question():
    options = {"url": "http://a", "timeout": 3.0, "retries": 1, "token_env": "T", "model": "m", "size": 64}
    old = {**stored(), "rewards": [{"kind": "vlm-judge", "options": options}]}
    moved = {**options, "url": "http://b", "timeout": 9.0, "retries": 5, "token_env": ""}
    assert differences(old, {**old, "rewards": [{"kind": "vlm-judge", "options": moved}]}) == []
    asked = {**options, "model": "n"}
    assert differences(old, {**old, "rewards": [{"kind": "vlm-judge", "options": asked}]}) == [
        "rewards.0.options.model was 'm', is 'n'"
    ]


def test_every_setting_says_what_it_is_for_in_sentences_that_a_table_and_a_translator_take():
    assert len(EVERY) > 60
    assert [name for name, known in EVERY.items() if not known.help.endswith(".")] == []
    assert [name for name, known in EVERY.items() if {*known.help} & {*"{}@|\n"}] == []


def test_a_number_field_ends_where_the_setting_does_or_before():
    ends = [(name, known, end) for name, known in EVERY.items() for end in known.number_field if end is not None]
    assert len(ends) > 50
    assert [(name, end) for name, known, end in ends if not known.allows(end)] == []


def test_a_number_field_begins_one_step_above_a_bound_that_is_none_itself():
    assert Setting("", above=0, most=1, step=0.01).number_field == (0.01, 1)
    assert Setting("", above=0, highest=10.0, step=1e-6, finest=1e-7).number_field == (1e-7, 10.0)
    assert Setting("", least=0, below=1, finest=0.25).number_field == (0, 0.75)
    assert Setting("", lowest=-2, highest=2).number_field == (-2, 2)
    assert Setting("").number_field == (None, None)
