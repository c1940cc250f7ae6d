"""Check 1: one iteration of every path against the same one on the CPU in float32."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...engine.drawing import Clock
from ...engine.grpo import Group
from ...engine.state import Setup, new_state
from ...models.flux1.geometry import FILL_CHANNELS
from ...settings.config import Config, InitSettings
from .bench import Bench, Ranking, gradient, iterate, relative
from .card import Card
from .counts import Case
from .models import random_setup
from .results import Value

# of x_0 (relative norm, at most) and of the gradient (cosine, at least)
BOUNDS = {"float32": (1e-4, 0.9999), "bfloat16": (3e-2, 0.99), "float16": (3e-2, 0.99)}
PICTURE = InitSettings(digest="random", denoise=0.8)
MASKED = replace(PICTURE, mask="middle")


@dataclass(frozen=True)
class Path:
    """Settings beside the defaults, by section; those of the transformer's sizes."""

    sections: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


def path(
    init: InitSettings | None = None, dtype: str = "float32", changes: Mapping[str, Any] | None = None, **sections: Any
) -> Path:
    return Path(sections | ({"init": init} if init else {}), changes or {}, dtype)


FILL = {"in_channels": FILL_CHANNELS, "out_channels": 64}
PATHS = {
    "text": path(),
    "text, bf16": path(dtype="bfloat16"),
    "text, float16": path(dtype="float16"),
    "picture": path(PICTURE),
    "mask": path(MASKED),
    "Fill": path(replace(MASKED, denoise=1.0), changes=FILL),
    "Kontext": path(replace(PICTURE, denoise=1.0, reference=True)),
    "KL": path(grpo={"kl_weight": 0.1}),
    "two updates": path(grpo={"updates_per_rollout": 2}),
    "DoRA": path(lora={"variant": "dora"}),
    "rsLoRA": path(lora={"variant": "rslora"}),
    "two sizes": path(sampling={"sizes": "two"}),
    "no checkpointing": path(model={"checkpointing": False}),
    "fp8": path(model={"memory": "fp8"}),
    "fp8, bf16": path(model={"memory": "fp8"}, dtype="bfloat16"),
    "offload 0.5": path(model={"offload": 0.5}),
    "offload 1": path(model={"offload": 1.0}),
    "fp8, offload 1, bf16": path(model={"memory": "fp8", "offload": 1.0}, dtype="bfloat16"),
    "euler": path(sampling={"solver": "euler"}),
    "ab2": path(sampling={"solver": "ab2"}),
    "heun": path(sampling={"solver": "heun"}),
}


def every_path(bench: Bench) -> Iterator[Value]:
    expected: dict[str, Found] = {}
    for name, wanted in PATHS.items():
        high, low = BOUNDS[wanted.dtype]
        exact = config_of(bench, wanted, "cpu", "float32")
        key = repr((replace(exact, model=replace(exact.model, offload=0, checkpointing=True)), wanted.changes))
        try:
            if key not in expected:
                expected[key] = travelled(bench, Card("cpu"), exact, wanted)
            found = travelled(bench, bench.card, config_of(bench, wanted, str(bench.card.device), wanted.dtype), wanted)
        except Exception as error:  # noqa: BLE001  whatever breaks one path says nothing of the others
            yield Value(name, f"{type(error).__name__}: {error}".partition("\n")[0], equals="runs")
            continue
        yield Value(f"{name}: x_0", relative(found.x_0, expected[key].x_0), high=high)
        yield Value(f"{name}: gradient's cosine", cosine(found.gradient, expected[key].gradient), low=low)
        yield Value(f"{name}: waits within rollout and update", float(found.waits), high=0)


def config_of(bench: Bench, wanted: Path, device: str, dtype: str) -> Config:
    """The path's settings on a device: a small group, a narrow model."""
    sizes = bench.sizes
    base = bench.config(Case("bf16", 0.0, sizes.narrow_pixels, 3), group_size=4, anchors=2, steps=3, trained_steps=2)
    model = replace(base.model, device=device, dtype=dtype, text_tokens=sizes.narrow_tokens)
    base = replace(base, model=model, lora=replace(base.lora, rank=4))
    sections = {name: dict(value) if isinstance(value, dict) else value for name, value in wanted.sections.items()}
    if sections.get("sampling", {}).get("sizes"):
        edge = sizes.narrow_pixels
        sections["sampling"]["sizes"] = ((edge, edge), (edge, edge // 2))
    changed = {n: replace(getattr(base, n), **v) if isinstance(v, dict) else v for n, v in sections.items()}
    return replace(base, **changed)


@dataclass
class Found:
    """What an iteration comes to, on the CPU."""

    x_0: Tensor
    gradient: Tensor  # of the whole LoRA, before the first update
    waits: int  # between the first and the last model call of rollout and update


def travelled(bench: Bench, card: Card, config: Config, wanted: Path) -> Found:
    """One iteration at each of the sizes, by the run's own functions."""
    changes = {**bench.sizes.narrow, **wanted.changes}
    rewards = {config.rewards[0].label: Ranking()}
    setup = random_setup(config, rewards, changes=changes, vae=bench.sizes.narrow_vae)
    states, gradients, waits = [], [], 0
    with card.waits() as waited:
        for iteration in range(len(config.sampling.all_sizes)):
            clock = Noted(card.device, setup, waited)
            group, first = one(setup.sized(iteration), clock, iteration)
            states.append(group.candidates.trajectories.x_0.float().cpu().flatten())
            gradients.append(first)
            waits += clock.within("rollout") + clock.within("update")
    return Found(torch.cat(states), torch.cat(gradients), waits)


def one(setup: Setup, clock: "Noted", iteration: int) -> tuple[Group, Tensor]:
    """(the group, the gradient of the first update) of an iteration."""
    state, gradients = new_state(setup), []

    def look(*_: object) -> None:
        clock.now = "after the first update"  # what the step and this look wait for is not the gradient's
        gradients.append(gradient(setup))

    state.optimizer.register_step_pre_hook(look)
    return iterate(setup, state, clock, iteration), gradients[0]


class Noted(Clock):
    """A clock that notes how often the host has waited by the time of each model call, phase by phase."""

    def __init__(self, device: torch.device, setup: Setup, waited: Callable[[], int]):
        super().__init__(device)
        self.waited, self.now = waited, ""
        self.calls: dict[str, list[int]] = {}
        setup.policy.before_call = self.note

    def note(self) -> None:
        self.calls.setdefault(self.now, []).append(self.waited())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.now = name
        with super().phase(name):
            yield

    def within(self, name: str) -> int:
        """Waits between the first and the last model call of a phase."""
        calls = self.calls[name]
        return calls[-1] - calls[0]


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()))
