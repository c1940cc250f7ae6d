"""Seeds have 64 bits: each is taken, gives random numbers of its own, and is kept with all of its digits."""

import pytest
import torch

from trainer.__main__ import main
from trainer.errors import ConfigError
from trainer.history import details, reading
from trainer.settings.config_file import load_config
from trainer.stages.noise import base_noise, derive_seed
from trainer.stages.prompts import prompt_order

LARGEST = 18446744073709551615  # 2^64 - 1, as ComfyUI's own seeds
SEEDS = [0, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, LARGEST - 1, LARGEST]


def test_a_seed_of_a_run_has_64_bits_and_none_more(config_file):
    for seed in SEEDS:
        assert load_config(config_file(), [f"run.seed={seed}"]).run.seed == seed
    for seed, told in ((-1, "-1"), (2**64, "18446744073709551616")):
        with pytest.raises(ConfigError) as caught:
            load_config(config_file(), [f"run.seed={seed}"])
        assert str(caught.value).startswith(f"run.seed = {told}: must ")


def test_every_seed_of_a_run_gives_draws_of_its_own():
    assert len({derive_seed(3, seed, 0, 0) for seed in SEEDS}) == len(SEEDS)
    assert len({tuple(prompt_order(1000, seed, 0, 20)) for seed in SEEDS}) == len(SEEDS)


def test_a_noise_is_that_of_torch_and_of_comfyui_for_every_seed():
    for seed in SEEDS:
        torch.manual_seed(seed)
        assert torch.equal(base_noise((4, 4), seed), torch.randn(4, 4))


def test_a_run_of_the_largest_seed_is_stored_and_shown_with_all_digits(tmp_path, capsys):
    (tmp_path / "config.toml").write_text(
        f"""
        prompts = ["a red apple"]
        model = {{path = "embedded", device = "cpu"}}
        run = {{folder = '{tmp_path / "run"}', iterations = 1, seed = {LARGEST}}}
        sampling = {{width = 64, height = 64, steps = 2}}
        grpo = {{group_size = 2, anchors = 1, trained_steps = 1}}
        rewards = [{{kind = "colourfulness"}}]
        """,
        "utf-8",
    )
    assert main(["train", str(tmp_path / "config.toml")]) == 0
    with reading(tmp_path / "run") as store:
        assert store.info()["settings"]["run"]["seed"] == LARGEST
        assert details(store)["settings"]["run"]["seed"] == str(LARGEST)  # JavaScript would read ...552000
        assert details(store)["settings"]["sampling"]["width"] == 64
    words = ["--prompts", "a red apple", "--seeds", "0", str(LARGEST), "-o", str(tmp_path / "grid.png")]
    assert main(["sample", str(tmp_path / "run"), *words]) == 0
    assert (tmp_path / "grid.png").is_file()
