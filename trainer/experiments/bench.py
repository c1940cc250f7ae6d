"""A loaded model on which many short runs are tried, each with a new LoRA, and tested on unseen prompts."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ..device import synchronize
from ..engine.setup import add_lora, assemble, build_rewards, drawn_in, encode_all, placement_of, source_of
from ..engine.state import Setup, State, new_state
from ..events import Event, IterationDone
from ..models.families import family_of
from ..models.lora.attach import ADAPTER, detach_lora
from ..settings.config import Config
from ..training.evaluate import UNSEEN, Difference, Samples, compare, sample
from ..training.loop import iterate
from ..training.probe import at, probe
from .noisy import Noisy
from .tasks import Task

KEPT = ("clip_fraction", "kl_old", "velocity_shift", "grad_norm", "diversity", "skipped_groups")  # metrics


@dataclass(frozen=True)
class Mark:
    """Where a run is when it is tested."""

    iterations: int
    seconds: float  # of training alone: of the processor on the CPU, of the clock on a device
    differences: dict[str, Difference]  # of each reward, on the tested prompts, from the base model
    metrics: dict[str, float]  # means over the iterations since the mark before


@dataclass
class Stopwatch:
    """Seconds of what runs inside: the process's own on the CPU, as cores may be shared, or the clock's."""

    device: torch.device
    seconds: float = 0.0
    _began: float = 0.0

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        synchronize(self.device)
        return time.perf_counter()

    def __enter__(self) -> None:
        self._began = self.now()

    def __exit__(self, *error: object) -> None:
        self.seconds += self.now() - self._began


@dataclass
class Bench:
    """A task's model, loaded once."""

    task: Task
    overrides: tuple[str, ...] = ()  # of every run
    _base: dict[int, Samples] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = config = self.task.config(self.overrides)
        self.conditioning, self.tested = encode_all(config, [config.prompts, config.evaluation.prompts])
        family = family_of(source_of(config), config.model.family)
        self.policy = family.load(source_of(config), placement_of(config), guidance=config.model.guidance)
        self.policy.adapter = ADAPTER
        self.rewards = build_rewards(config)

    @property
    def steps(self) -> int:
        """Of the solver, for the tested pictures."""
        return self.task.steps or self.config.sampling.steps

    def setup(self, config: Config, noise: tuple[str, float] | None = None) -> Setup:
        """The model under a run's settings, with a new LoRA, and its trained rewards disturbed by `noise`."""
        if ADAPTER in getattr(self.policy.network, "peft_config", {}):
            detach_lora(self.policy.network, ADAPTER)
        lora = add_lora(self.policy, config.lora, config.run.seed)
        rewards = self.rewards
        if noise is not None:
            generator = torch.Generator().manual_seed(config.run.seed)
            size = config.grpo.group_size
            rewards = {
                name: Noisy(reward, *noise, size, generator) if name in config.weights else reward
                for name, reward in rewards.items()
            }
        return assemble(config, self.policy, lora, self.conditioning, rewards, (), self.tested)

    def run(
        self,
        overrides: Sequence[str],
        seed: int,
        budget: float,
        marks: int,
        *,
        steps: Sequence[int] = (),
        noise: tuple[str, float] | None = None,
    ) -> Iterator[Mark]:
        """Train for `budget` seconds, and test `marks` times on the way, the last time at the end.

        Args:
            overrides: settings of the arm.
            noise: kind and amount, of the trained rewards: see `noisy`.
            steps: solver steps of the tested pictures, one table of differences for each; default: the task's.
        """
        config = self.task.config([*self.overrides, *overrides, f"run.seed={seed}"])
        setup = self.setup(config, noise)
        if config.grpo.probe:  # its seconds are not of training
            setup = setup.under(at(config, probe(setup, 0).strength, config.grpo.hold))
        state, watch = new_state(setup), Stopwatch(self.policy.device)
        for mark in range(1, marks + 1):
            metrics = self.train(setup, state, watch, budget * mark / marks)
            yield Mark(state.iteration, watch.seconds, self.test(setup, steps), metrics)

    def train(self, setup: Setup, state: State, watch: Stopwatch, until: float) -> dict[str, float]:
        """Iterate until the watch shows so many seconds; means of the metrics."""
        heard: list[dict[str, float]] = []

        def listen(event: Event) -> None:
            if isinstance(event, IterationDone):
                heard.append(event.metrics)

        while watch.seconds < until:
            with watch:
                iterate(setup, state, listen)
        return {name: mean(known) for name in KEPT if (known := [m[name] for m in heard if name in m])}

    def test(self, setup: Setup, steps: Sequence[int] = ()) -> dict[str, Difference]:
        """Each reward of the LoRA against the base model's, on the same noises of the tested prompts."""
        found = {}
        for count in steps or (self.steps,):
            drawn_by = self.drawing(count, setup.lora)
            before, after = self.base(drawn_by, count), self.pictures(drawn_by)
            for name in before.scores:
                label = f"{name}@{count}" if steps else name
                found[label] = compare(before.scores[name], after.scores[name])
        return found

    def drawing(self, steps: int, lora: Mapping[str, nn.Parameter]) -> Setup:
        """The model under the task's own settings, on a grid of so many steps, with the rewards as they are."""
        setup = assemble(self.config, self.policy, lora, self.conditioning, self.rewards, (), self.tested)
        return drawn_in(setup, steps)

    def base(self, setup: Setup, steps: int) -> Samples:
        """Of the base model: drawn once."""
        if steps not in self._base:
            with self.policy.reference():
                self._base[steps] = self.pictures(setup)
        return self._base[steps]

    def pictures(self, setup: Setup, each: int | None = None) -> Samples:
        """Of the tested prompts, `each` of every one; None: as many as the task has."""
        count = each or self.task.pictures
        prompts = [p for p in setup.config.evaluation.prompts for _ in range(count)]
        rows = torch.arange(len(self.tested)).repeat_interleave(count).tolist()
        return sample(setup, self.tested[rows], prompts, range(UNSEEN, UNSEEN + len(prompts)))


def mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan
