"""Whole runs on the card, through the front door: each kind of run ends with the CPU's LoRA, bit for bit.

They are float32 unless they say otherwise, of two iterations of the small random FLUX, in parts as large as can be but
for the first. The card computes with the CPU's own kernels, so nothing but a fault can make a difference.
"""

import json

import card
import pytest
import torch
from drawn_pictures import gradient_picture
from PIL import Image
from runs import equal, run

from trainer.__main__ import main
from trainer.events import Evaluated, IterationDone
from trainer.stages.solvers import SOLVERS

PICTURE = "image = 'seen.png'\ndenoise = 0.7"
MASKED = "image = 'seen.png'\nmask = 'mask.png'"
CLIP = '[[rewards]]\nkind = "tiny-clip"\n\n[[rewards]]\nkind = "tiny-clip-heldout"\nheld_out = true'
FP8 = "model.memory='fp8'"
WHOLE = ["sampling.steps=2", "run.micro_batch=8"]  # both solver's orders, and all candidates at once
KINDS = {
    "text": {"parts": []},
    "picture": {"init": PICTURE},
    "picture for each prompt": {"init": "image = ['seen.png', 'mask.png', 'seen.png']\ndenoise = 0.7"},
    "mask": {"init": MASKED},
    "reference": {"init": "image = 'seen.png'\nreference = true"},
    "KL and average": {"set": ["grpo.kl_weight=0.1", "optimizer.ema_decay=0.5"]},
    "rslora": {"set": ["lora.variant='rslora'"]},
    "dora": {"set": ["lora.variant='dora'"]},
    **{solver: {"set": [f"sampling.solver={solver!r}"]} for solver in SOLVERS if solver != "dpm++2m"},
    "bf16": {"set": ["model.dtype='bfloat16'"]},
    "fp8": {"set": [FP8]},
    "fp8 in bf16, a third offloaded": {"set": [FP8, "model.dtype='bfloat16'", "model.offload=0.3"]},
    "offloaded": {"set": ["model.memory='bf16'", "model.offload=1.0"]},
    "fp8, offloaded": {"set": [FP8, "model.offload=1.0"]},
    "several updates": {"set": ["grpo.updates_per_rollout=3"]},
    "two sizes": {"set": ["sampling.sizes=[[64, 64], [96, 48]]"]},
    "no checkpointing": {"set": ["model.checkpointing=false"]},
    "evaluation": {"evaluation": "prompts = ['a blue fish', 'a red apple']\nevery = 1"},
    "a model as reward": {"rewards": CLIP},
    "a model that waits on the host": {"rewards": CLIP, "set": ["run.offload_rewards=true"]},
}


@pytest.fixture
def both(config_file, tmp_path):
    """The same run on the CPU and on the card, or on those of them that are named."""
    gradient_picture(64, 64).save(tmp_path / "seen.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 40, 64))
    mask.save(tmp_path / "mask.png")

    def both(name="run", devices=("cpu", "card"), parts=WHOLE, **sections):
        # the card would draw as many at once as it has room for
        settings = [
            "model.dtype='float32'",
            "run.iterations=2",
            "run.rollout_batch=4",
            *parts,
            *sections.pop("set", ()),
        ]
        config = config_file(**sections)
        with card.pinning():
            return [run(config, tmp_path / name / d, [f"model.device={d!r}", *settings]) for d in devices]

    return both


def assert_equal_runs(ours, theirs):
    """Two runs that trained, with the same LoRA and the same pictures."""
    assert ours.reason == theirs.reason == "complete"
    assert all(m["grad_norm"] > 0 for m in theirs.metrics)
    assert equal(ours.lora, theirs.lora)
    for kind in (IterationDone, Evaluated):
        for a, b in zip(ours.of(kind), theirs.of(kind), strict=True):
            assert torch.equal(a.images.cpu(), b.images.cpu())
            assert equal(a.scores, b.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_the_card_ends_with_the_cpus_lora(both, kind):
    ours, theirs = both(**KINDS[kind])
    assert theirs.setup.policy.device == card.CARD
    assert_equal_runs(ours, theirs)
    assert not card.races


def test_fill_draws_into_a_picture_on_the_card(both, flux_fill):
    assert_equal_runs(*both(init=MASKED, model=f"path = {str(flux_fill)!r}\ntext_tokens = 12"))


def test_a_reward_of_ones_own_may_answer_on_the_cpu(both):
    assert_equal_runs(*both(rewards='[[rewards]]\nkind = "runs:Redness"'))


def test_offload_changes_no_bit(both):
    settings = [FP8, "model.dtype='bfloat16'"]
    shares = (0, 0.3, 1)
    runs = [both(str(s), ["card"], set=[*settings, f"model.offload={s}"]) for s in shares]
    (plain,), (part,), (whole,) = runs
    assert equal(plain.lora, part.lora)
    assert equal(plain.lora, whole.lora)


def test_the_command_trains_on_the_card(config_file, tmp_path, capsys):
    settings = [f"run.folder={str(tmp_path / 'run')!r}", "run.iterations=1", "model.device='card'"]
    assert main(["train", str(config_file()), *(word for s in settings for word in ("--set", s)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["last"]["memory/device"] > 0


def test_a_resumed_run_ends_with_the_same_lora(config_file, tmp_path):
    settings = ["model.device='card'", "model.dtype='float32'"]
    config, at_once, resumed = config_file(), tmp_path / "once", tmp_path / "twice"
    whole = run(config, at_once, [*settings, "run.iterations=3"])
    run(config, resumed, [*settings, "run.iterations=1"])
    again = run(config, resumed, [*settings, "run.iterations=3"], resume=True)
    assert again.of(IterationDone)[0].iteration == 1
    assert equal(again.lora, whole.lora)
