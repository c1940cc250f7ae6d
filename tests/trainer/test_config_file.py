"""Settings: what is accepted, and one clear line for everything else."""

import json

import pytest

from trainer.errors import ConfigError
from trainer.settings.config_file import load_config, parse


def test_a_file_becomes_settings_with_the_defaults_of_what_it_leaves_open(config_file, flux_dev, tmp_path):
    path = config_file(grpo="", sampling="", run="", optimizer="", lora="")
    config = load_config(path)
    assert config.model.path == str(flux_dev)
    assert (config.grpo.group_size, config.grpo.anchors, config.trained_steps) == (12, 1, 8)
    assert (config.grpo.strength, config.grpo.quasi_norm, config.sampling.steps) == (0.3, 0.8, 8)
    assert (config.sampling.solver, config.run.iterations, config.grpo.kl_weight) == ("dpm++2m", 300, 0)
    assert config.run.folder == "runs/config"
    assert config.weights == {"colourfulness": 1.0}


def test_stored_settings_make_the_same_config(config_file):
    config = load_config(config_file())
    assert parse(json.loads(json.dumps(config.to_dict()))) == config


def test_whole_numbers_serve_as_numbers_and_overrides_win(config_file):
    config = load_config(
        config_file(), ["lora.alpha=3", "grpo.strength=0.5", "sampling.solver=ab2", "rewards.0.weight=-2", "run.seed=9"]
    )
    assert config.lora.alpha == 3.0
    assert isinstance(config.lora.alpha, float)
    assert (config.grpo.strength, config.sampling.solver, config.run.seed) == (0.5, "ab2", 9)
    assert config.weights == {"colourfulness": -2.0}


def test_prompts_come_from_a_file_beside_the_config(config_file, tmp_path):
    (tmp_path / "prompts.txt").write_text("# animals\na cat\n\n  a dog  \n", "utf-8")
    assert load_config(config_file(head='prompts = "prompts.txt"')).prompts == ("a cat", "a dog")


REWARD = "[[rewards]]\nkind = "
REJECTED = {
    "unknown key": ({"grpo": "strenght = 0.3"}, r"'strenght' is no key of \[grpo\]: did you mean 'strength'\?"),
    "a section's own name": ({"grpo": "section = 'grpo'"}, r"'section' is no key of \[grpo\]"),
    "unknown section": ({"optimiser": "learning_rate = 1"}, "'optimiser' is no section: did you mean 'optimizer'"),
    "wrong type": ({"grpo": "group_size = 2.5"}, r"grpo.group_size = 2.5: must be a whole number"),
    "true is no number": ({"grpo": "group_size = true"}, r"grpo.group_size = True: must be a whole number"),
    "group of one": ({"grpo": "group_size = 1\nanchors = 1"}, r"grpo.group_size = 1: must be at least 2"),
    "anchors above group": ({"grpo": "group_size = 4\nanchors = 5"}, r"grpo.anchors = 5: .* grpo.group_size = 4"),
    "steps": ({"grpo": "trained_steps = 4", "sampling": "steps = 3"}, r"grpo.trained_steps = 4: .* sampling.steps = 3"),
    "size": ({"sampling": "width = 100"}, r"sampling.width must be a multiple of 16 pixels, got 100: try 96"),
    "solver": ({"sampling": "solver = 'rk4'"}, r"sampling.solver = 'rk4': must be one of euler, dpm\+\+2m"),
    "shift": ({"sampling": "shift = 'linear'"}, r"sampling.shift = 'linear': must be a number above 0, or 'auto'"),
    "strength": ({"grpo": "strength = 0"}, r"grpo.strength = 0.0: must be above 0 and at most 1"),
    "no model": ({"model": "path = 'missing'"}, r"model.path: model '.*missing': no diffusers folder there"),
    "no path": ({"model": "dtype = 'float32'"}, r"model.path = None: is needed"),
    "no rewards": ({"rewards": ""}, r"rewards = \[\]: at least one"),
    "unknown reward": (
        {"rewards": REWARD + "'jpeg-compress'"},
        "is no reward kind: did you mean 'jpeg-compressibility'",
    ),
    "reward option": (
        {"rewards": "[[rewards]]\nkind = 'colourfulness'\noptions = {scale = 2}"},
        r"rewards.0.options.scale = 2: the reward 'colourfulness' takes no options",
    ),
    "reward folder": (
        {"rewards": "[[rewards]]\nkind = 'clip'\noptions = {path = 'nowhere'}"},
        r"rewards.0.options.path = 'nowhere': there is no file or folder",
    ),
    "reward needs": (
        {"rewards": "[[rewards]]\nkind = 'reference-similarity'"},
        "rewards.0.options.references = None: the reward 'reference-similarity' needs it",
    ),
    "reward file": (
        {"rewards": "[[rewards]]\nkind = 'reference-similarity'\noptions = {references = ['a.png']}"},
        r"rewards.0.options.references = 'a.png': there is no file or folder",
    ),
    "reward path": ({"rewards": REWARD + "'hpsv2.1'\noptions = {path = 3}"}, "options.path = 3: must be a path"),
    "clip order": ({"rewards": REWARD + "'colourfulness'\nclip = [2, 1]"}, r"clip .* = \[2.0, 1.0\]: must be \[low"),
    "clip count": ({"rewards": REWARD + "'colourfulness'\nclip = [2]"}, r"clip .* = \[2.0\]: must be \[low, high\]"),
    "clip type": ({"rewards": REWARD + "'colourfulness'\nclip = 'a'"}, "rewards.0.clip = 'a': must be a list of num"),
    "all held out": ({"rewards": REWARD + "'colourfulness'\nheld_out = true"}, "at least one must be trained"),
    "twice": ({"rewards": (REWARD + "'colourfulness'\n") * 2}, r"\['colourfulness'\]: each reward needs a name"),
    "no weight": ({"rewards": "[[rewards]]\nkind = 'colourfulness'\nweight = 0"}, "must not be 0: use held_out"),
    "no prompts": ({"head": "prompts = []"}, r"prompts = \[\]: at least one prompt"),
    "prompt file": ({"head": "prompts = 'none.txt'"}, r"prompts = 'none.txt': .*cannot be read"),
    "evaluation number": ({"evaluation": "every = -1"}, "evaluation.every = -1: must be at least 0"),
    "evaluation prompts": ({"evaluation": "prompts = [1]"}, r"prompts = \[1\]: must be a list of texts"),
    "evaluation file": ({"evaluation": "prompts = 'none.txt'"}, "prompts = 'none.txt': .*cannot be read"),
    "evaluation key": (
        {"evaluation": "prompt = ['a']"},
        r"'prompt' is no key of \[evaluation\]: did you mean 'prompts'",
    ),
    "evaluation": ({"head": "prompts = ['a']\nevaluation = 3"}, r"evaluation = 3: must be a section"),
    "check": ({"run": "stop_on = ['hacking']"}, "run.stop_on = 'hacking': must be one of reward-hacking"),
    "checks": ({"run": "stop_on = 'stalled'"}, "run.stop_on = 'stalled': must be a list of texts"),
    "base": ({"run": "base_every = -1"}, "run.base_every = -1: must be at least 0"),
    "not TOML": ({"head": "prompts = ["}, "not a TOML file"),
}


@pytest.mark.parametrize("case", list(REJECTED))
def test_a_bad_setting_is_one_line_with_the_remedy(config_file, case):
    sections, message = REJECTED[case]
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(config_file(**sections))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["grpo.strength", "=3", "rewards.7.weight=1", "model.path.x=1", "rewards.one=1"])
def test_a_bad_override_is_refused(config_file, override):
    with pytest.raises(ConfigError):
        load_config(config_file(), [override])


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read \(No such file"):
        load_config(tmp_path / "none.toml")


def test_paths_of_a_reward_are_relative_to_the_config_and_known_weights_need_none(config_file, tmp_path):
    (tmp_path / "liked").mkdir()
    rewards = """
        [[rewards]]
        kind = "hpsv2.1"
        clip = [0, 0.35]
        [[rewards]]
        kind = "reference-similarity"
        options = { references = ["liked", "liked"], path = "" }
    """
    preference, similarity = load_config(config_file(rewards=rewards)).rewards
    assert preference.options == {}
    assert similarity.options == {"references": [str(tmp_path / "liked")] * 2, "path": ""}
    assert preference.clip == (0.0, 0.35)


def test_bounds_reach_the_combination(config_file):
    config = load_config(config_file(rewards=REWARD + "'colourfulness'\nclip = [0, 60]\n" + REWARD + "'sharpness'"))
    assert config.clips == {"colourfulness": (0.0, 60.0)}
    assert parse(json.loads(json.dumps(config.to_dict()))) == config


def test_evaluation_prompts_are_a_list_or_a_file_and_stored_as_texts(config_file, tmp_path):
    (tmp_path / "shown.txt").write_text("# to look at\na red apple\n\na blue fish\n", "utf-8")
    listed = load_config(config_file(evaluation='prompts = ["a red apple", "a blue fish"]\nevery = 20'))
    read = load_config(config_file(evaluation='prompts = "shown.txt"\nevery = 20'))
    assert listed.evaluation.prompts == read.evaluation.prompts == ("a red apple", "a blue fish")
    assert read.evaluation.every == 20
    assert parse(json.loads(json.dumps(read.to_dict()))) == read
    assert load_config(config_file()).evaluation.prompts == ()


def test_a_run_may_end_on_several_findings(config_file):
    config = load_config(config_file(), ["run.stop_on=['reward-hacking', 'trust-region']"])
    assert config.run.stop_on == ("reward-hacking", "trust-region")
    assert parse(json.loads(json.dumps(config.to_dict()))) == config
