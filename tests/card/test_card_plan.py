"""The plan's count of every phase against a real run on the card, which counts each allocation."""

import gc
from contextlib import contextmanager

import card
import pytest
from PIL import Image

from trainer.cli.bench import CONFIG
from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state
from trainer.models.storage.memory import MemoryPlan
from trainer.planning.phases import PHASES, predict
from trainer.settings.config_file import load_config
from trainer.training import prepare as preparing
from trainer.training.self_test import self_test

SETTINGS = [
    'prompts=["red apple on a blue background", "panda on a pink background"]',
    "model.device='card'",
    "grpo.prompts_per_iteration=2",
    "grpo.group_size=6",
    "optimizer.ema_decay=0.5",
    "run.rollout_batch=8",  # and the last has 4
]
PLANS = {
    "bf16": (MemoryPlan(), ["model.dtype='bfloat16'"]),
    "fp8, offloaded, checkpointing": (
        MemoryPlan("fp8", 1.0),
        ["model.dtype='bfloat16'", "model.checkpointing=true", "model.keep_inputs=false", "run.offload_rewards=true"],
    ),
    "fp8, inputs kept": (
        MemoryPlan("fp8"),
        ["model.dtype='bfloat16'", "model.checkpointing=true", "model.keep_inputs=true"],
    ),
    "float32, inpainting, KL": (
        MemoryPlan(),
        ["model.dtype='float32'", "init.image=['white.png']", "init.mask='white.png'", "grpo.kl_weight=0.1"],
    ),
}
SMALL = 100_000  # bytes, where 3 % of the embedded model's text encoders are less


class Meter(Clock):
    """The loop's clock, which reads the card's peak in each phase."""

    def __init__(self):
        super().__init__(card.CARD)
        gc.collect()
        self.base, self.peaks = card.memory.live, {}

    @contextmanager
    def phase(self, name):
        gc.collect()
        card.memory.restart_peak()
        yield
        self.peaks[name] = card.memory.peak - self.base


def real_peaks(config, monkeypatch) -> dict[str, int]:
    meter, encode_all = Meter(), preparing.encode_all

    def watched(*arguments):
        with meter.phase("encode"):
            encoded = encode_all(*arguments)
        card.memory.restart_peak()
        return encoded

    monkeypatch.setattr(preparing, "encode_all", watched)
    setup = preparing.prepare(config)
    meter.peaks["load"] = card.memory.peak - meter.base
    state = new_state(setup)
    for iteration in range(2):  # the first makes the optimiser's state
        train(setup, state, iteration, meter)
    with meter.phase("self-test"):  # as of a resumed run, whose optimiser has its state
        self_test(setup, 0)
    return meter.peaks


def train(setup, state, iteration, meter) -> None:
    group = collect(setup, iteration, meter)
    with meter.phase("update"):
        improve(setup, state, group, pairs_of(setup, group, iteration))


@pytest.mark.parametrize("name", PLANS)
def test_the_peak_of_every_phase_is_the_plans_within_three_percent(name, monkeypatch, tmp_path):
    plan, settings = PLANS[name]
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    settings = [s.replace("white.png", str(tmp_path / "white.png")) for s in settings]
    memory = [f"model.memory={plan.precision!r}", f"model.offload={plan.offload}"]
    config = load_config(CONFIG, [*SETTINGS, *memory, *settings])
    with card.pinning():
        real = real_peaks(config, monkeypatch)
    tested = real.pop("self-test")
    predicted = predict(config, plan)
    assert set(real) == set(PHASES)
    for phase in PHASES:
        assert real[phase] == pytest.approx(predicted[phase].device, rel=0.03, abs=SMALL), phase
    assert tested < 1.03 * predicted["update"].device + SMALL
