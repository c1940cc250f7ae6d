"""Runs of the loop alone: what a listener hears, and rewards that a test makes up."""

from dataclasses import replace

import torch

from trainer.engine.state import new_state
from trainer.settings.config_file import load_config
from trainer.training.loop import train
from trainer.training.prepare import prepare


def setup_of(config_file, reward=None, overrides=(), **sections):
    """What a run of the small random FLUX loads, scored by `reward` if there is one; see the fixture `config_file`."""
    setup = prepare(load_config(config_file(**sections), overrides))
    return replace(setup, rewards={"colourfulness": reward}) if reward else setup


class Recorder(list):
    def __call__(self, event):
        self.append(event)

    def of(self, kind):
        return [e for e in self if isinstance(e, kind)]


class ScriptedReward:
    """Returns what `script(call number, N)` says."""

    def __init__(self, script):
        self.script, self.calls = script, 0

    def score(self, images, prompts):
        assert len(images) == len(prompts)
        self.calls += 1
        return self.script(self.calls - 1, len(images))


def run(setup, state=None, **options):
    events, state = Recorder(), state or new_state(setup)
    reason = str(train(setup, state, on_event=events, save=lambda s: events(("saved", s.iteration)), **options))
    return reason, state, events


def weights(setup):
    return {name: p.detach().clone() for name, p in setup.lora.items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)
