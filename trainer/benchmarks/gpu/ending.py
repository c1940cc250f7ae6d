"""Checks 10 and 14: a run that is stopped in the middle changes nothing, and one that goes on ends as if it had not."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...device import synchronize
from ...engine.state import Setup, State, new_state
from ...errors import Stopped
from ...settings.config import Config
from ...training.loop import train
from ...training.run import start_run
from ...training.self_test import self_test
from .bench import Bench, Ranking, iterate
from .counts import Case
from .models import random_setup
from .paths import Noted
from .results import Value

SECONDS = {"rollout": 0.3, "update": 0.8, "decode": 0.3}  # on an H200, from the wish to the end


def cancel(bench: Bench) -> Iterator[Value]:
    """Stopped just after a model call of each phase began, the worst moment: the next call is the first to notice."""
    _, setup = bench.best(steps=2, trained_steps=2, anchors=4)  # several model calls in each phase
    one = replace(setup, config=replace(setup.config, run=replace(setup.config.run, iterations=1)))
    for phase, call in moments(one).items():
        before, state = copied(one), new_state(one)
        seconds, ending = stopped_at(one, state, call)
        yield Value(f"in {phase}", seconds, "s", **bench.card.on_h200(None, 2 * SECONDS[phase]))
        yield Value(f"in {phase}: it ends as", ending, equals="stopped")
        same = all(torch.equal(before[name], p) for name, p in one.lora.items())
        untouched = same and not state.optimizer.state and (state.iteration, state.updates) == (0, 0)
        yield Value(f"in {phase}: LoRA and optimiser", "untouched" if untouched else "changed", equals="untouched")


def copied(setup: Setup) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in setup.lora.items()}


def moments(setup: Setup) -> dict[str, int]:
    """A model call in the middle of each phase, counted from the start of a run. One is drawn dry, and undone."""
    before = copied(setup)
    clock = Noted(setup.policy.device, setup, lambda: 0)
    clock.now = "self-test"
    self_test(setup, 0)
    iterate(setup, new_state(setup), clock)
    with torch.no_grad():
        for name, parameter in setup.lora.items():
            parameter.copy_(before[name])
    first, found = 0, {}
    for phase, calls in clock.calls.items():
        if phase in SECONDS:
            found[phase] = first + (len(calls) - 1) // 2
        first += len(calls)
    return found


def stopped_at(setup: Setup, state: State, call: int) -> tuple[float, str]:
    """(seconds from the beginning of that model call to the run's end, why it ended)."""
    calls, began = 0, 0.0

    def before_call() -> None:
        nonlocal calls, began
        if calls > call:
            raise Stopped
        if calls == call:
            synchronize(setup.policy.device)
            began = time.perf_counter()
        calls += 1

    setup.policy.before_call = before_call
    try:
        ending = train(setup, state, on_event=lambda _: None, save=lambda _: None)
    finally:
        setup.policy.before_call = lambda: None
    synchronize(setup.policy.device)
    return time.perf_counter() - began, str(ending)


def resume(bench: Bench) -> Iterator[Value]:
    """Two iterations, saved, loaded and two more, against four: bit for bit, with attention in plain mathematics."""
    with tempfile.TemporaryDirectory() as name, sdpa_kernel(SDPBackend.MATH):
        parts, whole = Path(name) / "parts", Path(name) / "whole"
        run_in(bench, parts, 2)
        resumed = run_in(bench, parts, 4, resume=True)
        straight = run_in(bench, whole, 4)
    yield Value("the LoRA has learnt", "yes" if moved(bench, straight) else "no", equals="yes")
    odd = sum(not torch.equal(a, b) for a, b in zip(resumed, straight, strict=True))
    yield Value("tensors of the LoRA that differ", float(odd), f"of {len(straight)}", high=0)


def run_in(bench: Bench, folder: Path, iterations: int, *, resume: bool = False) -> Sequence[Tensor]:
    """The LoRA that a run in `folder` ends with, on the CPU. Each call loads the model anew."""
    base = bench.config(Case("bf16", 0.0, bench.sizes.narrow_pixels, 2), group_size=4, anchors=2, steps=2)
    run = replace(base.run, folder=str(folder), iterations=iterations, tiles_every=1)
    model = replace(base.model, text_tokens=bench.sizes.narrow_tokens)
    _, setup = start_run(replace(base, run=run, model=model), resume=resume, load=lambda config: narrow(bench, config))
    return [parameter.detach().cpu() for parameter in setup.lora.values()]


def narrow(bench: Bench, config: Config) -> Setup:
    rewards = {config.rewards[0].label: Ranking()}
    return random_setup(config, rewards, changes=bench.sizes.narrow, vae=bench.sizes.narrow_vae)


def moved(bench: Bench, trained: Sequence[Tensor]) -> bool:
    """Whether the weights are other ones than those that a run begins with."""
    base = bench.config(Case("bf16", 0.0, bench.sizes.narrow_pixels, 2))
    model = replace(base.model, text_tokens=bench.sizes.narrow_tokens)
    begun = narrow(bench, replace(base, model=model)).lora.values()
    return all(not torch.equal(a, b.detach().cpu()) for a, b in zip(trained, begun, strict=True))
