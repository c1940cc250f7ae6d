"""Where reward models are: on the pictures' device while they score, and elsewhere only where that is asked for."""

from dataclasses import replace

import pytest
import torch

from trainer.engine.drawing import score_pictures
from trainer.engine.setup import assemble, build_rewards, encode
from trainer.engine.state import new_state
from trainer.rewards import build
from trainer.rewards.base import on_device
from trainer.settings.config_file import load_config
from trainer.training.evaluate import sample
from trainer.training.loop import train
from trainer.training.prepare import prepare


class Placed:
    """Brightness, by a model that is somewhere."""

    def __init__(self, broken: bool = False):
        self.log, self.broken = [], broken

    def to(self, device):
        self.log.append(str(device))

    def score(self, images, prompts):
        self.log.append("score")
        if self.broken:
            raise RuntimeError("broken")
        return images.mean((1, 2, 3))


@pytest.mark.parametrize(("stay", "after"), [(True, []), (False, ["cpu"])])
def test_models_are_on_the_device_inside_and_wait_in_host_memory_where_asked(stay, after):
    model, plain = Placed(), build("colourfulness", {}, "cpu")  # the second one has nothing to move
    with on_device([model, plain], "cuda:3", stay=stay):
        assert model.log == ["cuda:3"]
    assert model.log == ["cuda:3", *after]


@pytest.mark.parametrize(("offload", "after"), [(False, []), (True, ["cpu"])])
def test_each_reward_in_turn_is_on_the_device_while_it_scores(config_file, offload, after):
    setup = prepare(load_config(config_file(), [f"run.offload_rewards={str(offload).lower()}"]))
    log = []

    class Named(Placed):
        def __init__(self, name):
            self.name, self.log = name, log

        def to(self, device):
            log.append((self.name, str(device)))

        def score(self, images, prompts):
            log.append((self.name, "score"))
            return images.mean((1, 2, 3))

    images = torch.rand(3, 3, 8, 8)
    scores = score_pictures(replace(setup, rewards={"a": Named("a"), "b": Named("b")}), images, ["x", "y", "z"])
    assert all(torch.equal(scores[name], images.mean((1, 2, 3))) for name in "ab")
    assert log == [(name, step) for name in "ab" for step in ("cpu", "score", *after)]


def test_models_that_do_not_stay_leave_the_device_when_they_are_built(config_file, monkeypatch):
    model = Placed()
    monkeypatch.setattr("trainer.engine.setup.build", lambda kind, options, device: model)
    build_rewards(load_config(config_file()))
    assert model.log == []
    build_rewards(load_config(config_file(), ["run.offload_rewards=true"]))
    assert model.log == ["cpu"]


def test_a_device_with_no_room_for_the_second_is_left_by_the_first():
    class Large(Placed):
        def to(self, device):
            super().to(device)
            if device == "cuda":
                raise torch.OutOfMemoryError

    small, large = Placed(), Large()
    with pytest.raises(torch.OutOfMemoryError), on_device([small, large], "cuda", stay=False):
        pytest.fail("the block began")
    assert small.log == ["cuda", "cpu"]
    assert large.log == ["cuda", "cpu"]


def test_a_failure_takes_them_off_the_device_too():
    model = Placed(broken=True)
    with pytest.raises(RuntimeError), on_device([model], "cuda", stay=False):
        model.score(torch.zeros(1, 3, 8, 8), [""])
    assert model.log == ["cuda", "score", "cpu"]


@pytest.mark.parametrize(("offload", "moves"), [(False, []), (True, ["cpu"])])
def test_a_run_begins_with_them_where_they_wait(config_file, offload, moves):
    setup = prepare(load_config(config_file(), [f"run.offload_rewards={str(offload).lower()}"]))
    model = Placed()
    assemble(setup.config, setup.policy, setup.lora, setup.conditioning, {"colourfulness": model})
    assert model.log == moves


@pytest.mark.parametrize(("offload", "phase"), [(False, ["cpu", "score"]), (True, ["cpu", "score", "cpu"])])
def test_a_run_moves_them_around_each_scoring(config_file, offload, phase):
    config = load_config(config_file(), [f"run.offload_rewards={str(offload).lower()}", "run.iterations=2"])
    model = Placed()
    setup = replace(prepare(config), rewards={"colourfulness": model})
    train(setup, new_state(setup), on_event=lambda _: None, save=lambda _: None)
    assert model.log == phase * 2
    model.log.clear()
    sample(setup, encode(config, ["a red apple"]), ["a red apple"], [0])
    assert model.log == phase


def test_a_clip_that_was_away_gives_the_same_scores_and_knows_its_prompts(pictures, monkeypatch):
    reward, prompts = build("tiny-clip", {}, "cpu"), ["a red apple", "a blue fish", "a green tree"]
    images = pictures(64, 64)
    with on_device([reward], "cpu", stay=False):
        first = reward.score(images, prompts)
    known = dict(reward.encoder.known)
    monkeypatch.setattr(reward.encoder, "tokens", None)  # a text that is encoded again would fail
    with on_device([reward], "cpu", stay=False):
        assert torch.equal(reward.score(images, prompts), first)
    assert known.keys() == reward.encoder.known.keys() >= set(prompts)  # rewards share it, and others may live
