"""Block inputs that the rollout keeps: the first update's gradient is the same, with one pass less."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch

from trainer.engine.drawing import Clock
from trainer.engine.grpo import Candidates, collect, drawn_pairs, improve, pairs_of, places_of
from trainer.engine.keeping import Keeping
from trainer.engine.micro_batch import MicroBatch
from trainer.engine.state import new_state
from trainer.events import Halved, LetGo
from trainer.settings.config_file import load_config
from trainer.training.loop import train
from trainer.training.prepare import prepare

OVERRIDES = ["model.checkpointing=true", "grpo.prompts_per_iteration=2", "run.micro_batch=3"]


@pytest.fixture
def updated(config_file):
    """One iteration: the LoRA afterwards, the metrics, how often each block was passed, the candidates."""

    def updated(keeps: bool, *overrides: str) -> tuple[dict, dict, Counter, Candidates]:
        setup = replace(prepare(load_config(config_file(), [*OVERRIDES, *overrides])), keeping=Keeping(keeps))
        state, passes = new_state(setup), Counter()
        with torch.no_grad():
            for name, parameter in setup.lora.items():
                if ".lora_B." in name:  # else A's gradient is zero
                    parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(len(name)))
        group = collect(setup, 0, Clock(setup.policy.device))
        pairs = pairs_of(setup, group, 0)
        assert len(pairs) > 0
        for kind in ("transformer_blocks", "single_transformer_blocks"):
            for block in getattr(setup.policy.network, kind):
                block.attn.register_forward_hook(lambda *_, kind=kind: passes.update([kind]))
        metrics, skipped = improve(setup, state, group, pairs)
        assert not skipped
        return {name: p.detach().clone() for name, p in setup.lora.items()}, metrics, passes, group.candidates

    return updated


def assert_close(found: dict, expected: dict, bound: float) -> None:
    moved = torch.cat([(found[name] - expected[name]).flatten() for name in expected])
    assert moved.norm() <= bound * torch.cat([p.flatten() for p in expected.values()]).norm()


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("grpo.kl_weight=0.1",),
        ("grpo.pairing='crossed'", "grpo.anchors=2", "grpo.trained_steps=2"),
        ("run.rollout_batch=4", "run.micro_batch=2"),
        ("lora.variant='dora'",),
    ],
    ids=("usual", "KL", "crossed", "other batches", "DoRA"),
)
def test_the_first_update_is_the_same_with_a_pass_less(updated, overrides):
    expected, plain, all_passes, _ = updated(False, *overrides)
    found, metrics, passes, _ = updated(True, *overrides)
    assert_close(found, expected, 1e-6)
    assert metrics["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
    assert metrics["velocity_error"] < 1e-5
    if "grpo.kl_weight=0.1" not in overrides:
        assert {kind: 2 * n for kind, n in passes.items()} == all_passes
    assert passes.total() < all_passes.total()


def test_a_second_update_computes_anew(updated):
    """The policy has moved: kept inputs would be the old policy's."""
    expected, _, all_passes, _ = updated(False, "grpo.updates_per_rollout=2")
    found, _, passes, _ = updated(True, "grpo.updates_per_rollout=2")
    assert_close(found, expected, 1e-6)
    assert {kind: 4 * n for kind, n in passes.items()} == {kind: 3 * n for kind, n in all_passes.items()}


def test_what_was_kept_is_let_go_after_the_update(updated):
    assert updated(False)[-1].keeper is None
    keeper = updated(True)[-1].keeper
    assert keeper.wanted
    assert not keeper._inputs


@pytest.mark.parametrize("phase", ["rollout", "decoding", "reward", "update"])
def test_a_full_device_gets_it_back_before_fewer_are_drawn_or_trained_at_once(config_file, monkeypatch, phase):
    fit, left = MicroBatch.fit, [2]

    def short(self, name, work):
        def tried(size):
            found = work(size)
            if name == phase and left[0]:
                left[0] -= 1
                raise torch.OutOfMemoryError("full")
            return found

        return fit(self, name, tried)

    def trained(keeps):
        setup, events = prepare(load_config(config_file(), [*OVERRIDES, "run.iterations=2"])), []
        setup = replace(setup, keeping=Keeping(keeps))

        def listen(event):
            events.append(event)
            keeping = setup.keeping
            assert not isinstance(event, LetGo) or not keeping.on
            assert keeping.on or not keeping.keeper or not keeping.keeper._inputs

        train(setup, new_state(setup), on_event=listen, save=lambda _: None)
        return {name: p.detach().clone() for name, p in setup.lora.items()}, events, setup

    expected, *_ = trained(False)
    monkeypatch.setattr(MicroBatch, "fit", short)
    found, events, setup = trained(True)
    told = [(type(e), e.phase) for e in events if isinstance(e, LetGo | Halved)]
    assert told == [(LetGo, phase), (Halved, phase)]
    assert not setup.keeping.on
    assert not setup.keeping.keeper  # the second iteration had none
    assert_close(found, expected, 1e-4)


@pytest.mark.parametrize("override", ["sampling.solver='heun'", "model.checkpointing=false"])
def test_if_it_spares_nothing_or_is_not_known_nothing_is_kept(updated, override):
    assert updated(True, override)[-1].keeper is None


def test_compiled_blocks_keep_their_inputs_too(updated, monkeypatch):
    """By the backend that needs no compiler."""
    expected, *_ = updated(False)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    found, *_, candidates = updated(True, "model.compile=true")
    assert candidates.keeper.wanted
    assert_close(found, expected, 1e-5)


def test_places_are_the_calls_and_candidates_of_pairs(config_file):
    setup = prepare(load_config(config_file(), [*OVERRIDES, "grpo.pairing='crossed'", "grpo.trained_steps=2"]))
    pairs = drawn_pairs(setup, 0, 2)
    size = setup.config.grpo.group_size
    expected = [((1, 3)[k], p * size + a) for p, a, k in zip(pairs.prompt, pairs.anchor, pairs.step, strict=True)]
    assert places_of(pairs, [1, 3], size) == expected
