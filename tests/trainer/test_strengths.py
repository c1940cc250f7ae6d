"""At which strength a LoRA is best: what a strength means, which is recommended, and the command."""

import json
from pathlib import Path

import pytest
import torch

from trainer.__main__ import main
from trainer.history import reading, strengths
from trainer.models.lora.strength import at_strength
from trainer.settings.config_file import load_config
from trainer.training.evaluate import Difference
from trainer.training.prepare import prepare
from trainer.training.strengths import STRENGTHS, AtStrength, measure, recommended

REWARDS = '[[rewards]]\nkind = "colourfulness"\n[[rewards]]\nkind = "sharpness"\nheld_out = true'


@pytest.fixture
def setup(config_file):
    """A LoRA that does something."""
    setup = prepare(load_config(config_file(rewards=REWARDS)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in setup.lora.items():
            if "lora_B" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return setup


def velocity(setup) -> torch.Tensor:
    x = torch.randn(1, *setup.geometry.latent_shape, generator=torch.Generator().manual_seed(1))
    rows = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        v = setup.policy.velocity(setup.conditioning, setup.geometry)
        return v(setup.geometry.pack(x), torch.tensor([0.5]), rows)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.2])
def test_a_strength_multiplies_what_the_lora_adds_to_the_weights(setup, strength):
    network, adapter = setup.policy.network, setup.policy.adapter
    with at_strength(network, adapter, strength):
        found = velocity(setup)
    with torch.no_grad():
        for name, p in setup.lora.items():
            if "lora_B" in name:
                p.mul_(strength)
    torch.testing.assert_close(found, velocity(setup))


def test_it_ends_with_its_block_even_by_an_error(setup):
    before = velocity(setup)
    with pytest.raises(ZeroDivisionError), at_strength(setup.policy.network, setup.policy.adapter, 0.4):
        1 / 0  # noqa: B018
    assert torch.equal(velocity(setup), before)


def test_every_strength_is_measured_against_the_base_model_on_the_same_noises(setup):
    prompts = [setup.config.prompts[0]] * 3
    none, half, full = measure(setup, prompts, [5, 6, 7], [0.0, 0.5, 1.0])
    assert all(d.difference == 0 for d in none.differences.values())
    assert half.differences["sharpness"].before == full.differences["sharpness"].before
    assert half.differences["sharpness"].after != full.differences["sharpness"].after


def at(strength: float, trained: float, held_out: float, error: float = 0.01) -> AtStrength:
    rises = {"a": trained, "b": held_out}
    return AtStrength(strength, {name: Difference(0, rise, rise, error) for name, rise in rises.items()})


@pytest.mark.parametrize(
    ("held_outs", "expected"),
    [
        ((0.01, 0.05, 0.02), 0.8),  # clearly best in the middle
        ((0.05, 0.03, 0.01), 0.4),
        ((0.05, 0.03, 0.045), 1.2),  # within an error of the best: the trained reward decides
    ],
)
def test_the_held_out_reward_decides_and_within_its_error_the_trained_one(held_outs, expected):
    found = [at(s, s, held_out) for s, held_out in zip((0.4, 0.8, 1.2), held_outs, strict=True)]
    assert recommended(found, ["a"], ["b"]).strength == expected


def test_without_a_held_out_reward_the_trained_one_decides():
    found = [at(0.4, 0.1, 0), at(0.8, 0.3, 0), at(1.2, 0.2, 0)]
    assert recommended(found, ["a"], []).strength == 0.8


def test_rewards_count_in_units_of_their_own_error():
    small = AtStrength(0.4, {"a": Difference(0, 1, 1.0, 10), "b": Difference(0, 0, 0.09, 0.01)})
    large = AtStrength(0.8, {"a": Difference(0, 9, 9.0, 10), "b": Difference(0, 0, 0.01, 0.01)})
    assert recommended([small, large], ["a", "b"], []).strength == 0.4


def test_the_command_asks_a_runs_own_prompts(config_file, capsys):
    path = config_file(rewards=REWARDS, evaluation="prompts = ['a green bird']")
    assert main(["train", str(path), "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert main(["strength", run["run"], "--pictures", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["strength"] for row in found["strengths"]] == list(STRENGTHS)
    assert found["pictures"] == 2
    assert found["recommended"] in STRENGTHS
    with reading(Path(run["run"])) as store:
        kept = strengths(store)
    assert (kept["recommended"], kept["iteration"]) == (found["recommended"], load_config(path).run.iterations)
    mine, told = (table["strengths"][3]["rewards"]["sharpness"]["after"] for table in (kept, found))
    assert mine == told
    assert main(["strength", run["run"], "--pictures", "2"]) == 0
    text = capsys.readouterr().out
    assert "sharpness (held out)" in text
    assert text.count("<- best") == 1
    assert text.rstrip().endswith(f"recommended: {found['recommended']:g}")

    assert main(["strength", run["lora"]]) == 2
    assert "name some by --prompts" in capsys.readouterr().err
    assert main(["strength", run["run"], "--pictures", "1"]) == 2
    assert "--pictures 1: two pictures at least" in capsys.readouterr().err
    assert Path(run["lora"]).is_file()
