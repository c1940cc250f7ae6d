#!/usr/bin/env python3
"""Record healthy and sick trainings of the embedded model, for the tests of trainer/diagnosis.

usage: python tests/record_runs.py [--work FOLDER] [--only TEXT]

Every run is a real training of 64 x 64 pictures by two small CLIPs, tiny-clip trained and tiny-clip-heldout held out,
unless its recipe says otherwise. A run is stored in FOLDER when it ends, and not made again; the curves of all go to
tests/trainer/recorded/runs.jsonl, where those that were not made stay as they are. Two to three minutes a run on one
core.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from trainer.engine.state import Setup
from trainer.events import Event, IterationDone
from trainer.models.conditioning import Conditioning
from trainer.rewards.base import Reward
from trainer.settings.config import Config
from trainer.settings.config_file import load_config
from trainer.tiny.captions import BACKGROUNDS, EMOJI, caption
from trainer.training.evaluate import compare, sample
from trainer.training.prepare import prepare
from trainer.training.run import start_run

TARGET = Path(__file__).parent / "trainer" / "recorded" / "runs.jsonl"
ITERATIONS, LONG, HEALTHY = 32, 96, 20
# what the embedded model draws with room to improve
TAUGHT = """octopus doughnut balloon bug watermelon basketball monkey_face snail butterfly hamster unicorn_face spider
tennis lemon cookie crab umbrella croissant egg deciduous_tree art broccoli bulb dog""".split()
PROMPTS, TESTED = 4, 24  # prompts of a run, and the pictures of them that tell before from after
SETTINGS = """
model = { path = "embedded", device = "cpu", text_tokens = 32 }
sampling = { width = 64, height = 64, steps = 6 }
grpo = { prompts_per_iteration = 2, group_size = 8, anchors = 4, trained_steps = 3 }
optimizer = { learning_rate = 1e-3 }
run = { micro_batch = 16, tiles_every = 4, base_every = 4, save_every = 1000 }
"""


@dataclass(frozen=True)
class Recipe:
    """How one run is made, and what is wrong with it by design; empty where nothing is."""

    seed: int
    sickness: str = ""
    settings: tuple[str, ...] = ()
    trained: str = "tiny-clip"
    held_out: str = "tiny-clip-heldout"
    wrapper: str = ""  # of the trained reward, see WRAPPERS
    prompts: Sequence[str] = field(default=())
    iterations: int = ITERATIONS

    def overrides(self) -> list[str]:
        rewards = [{"kind": self.trained}, {"kind": self.held_out, "held_out": True}]
        table = ", ".join(
            "{" + ", ".join(f"{k} = {str(v).lower() if v is True else repr(v)}" for k, v in r.items()) + "}"
            for r in rewards
        )
        prompts = list(self.prompts) or drawn(self.seed)
        return [f"rewards=[{table}]", f"prompts={prompts!r}", f"run.seed={self.seed}", *self.settings]


class Noise:
    """Scores that have nothing to do with the pictures."""

    def __init__(self, reward: Reward):
        self.generator = torch.Generator().manual_seed(0)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.randn(len(images), generator=self.generator)


class YesOrNo:
    """A judge that says 1 for a very good picture and 0 for another."""

    def __init__(self, reward: Reward):
        self.reward = reward

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return (self.reward.score(images, prompts) > 0.85).float()


class Moody(YesOrNo):
    """A judge whose mood changes its answer far more than the picture does."""

    def __init__(self, reward: Reward):
        super().__init__(reward)
        self.generator = torch.Generator().manual_seed(1)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        scores = self.reward.score(images, prompts)
        return 0.1 * scores + torch.randn(len(images), generator=self.generator)


WRAPPERS = {"noise": Noise, "yes or no": YesOrNo, "moody": Moody}

SICK = {
    "hacking: colours": Recipe(101, "reward-hacking", ("optimizer.learning_rate=2e-3",), trained="colourfulness"),
    "hacking: plain pictures": Recipe(
        102, "reward-hacking", ("optimizer.learning_rate=2e-3",), trained="jpeg-compressibility"
    ),
    "hacking: colours, slowly": Recipe(
        103, "reward-hacking", ("optimizer.learning_rate=1e-3",), trained="colourfulness"
    ),
    "hacking: sharpness": Recipe(104, "reward-hacking", ("optimizer.learning_rate=2e-3",), trained="sharpness"),
    "trust region: rate": Recipe(111, "trust-region", ("optimizer.learning_rate=1e-2", "grpo.updates_per_rollout=4")),
    "trust region: updates": Recipe(
        112, "trust-region", ("optimizer.learning_rate=5e-3", "grpo.updates_per_rollout=8")
    ),
    "trust region: one update, a lower rate": Recipe(105, "trust-region", ("optimizer.learning_rate=5e-3",)),
    "trust region: one update": Recipe(113, "trust-region", ("optimizer.learning_rate=3e-2",)),
    "flat: yes or no": Recipe(
        121, "flat-rewards", wrapper="yes or no", prompts=("dog on a purple background", "cat on a black background")
    ),
    "flat: yes or no, close neighbours": Recipe(122, "flat-rewards", ("grpo.strength=0.1",), wrapper="yes or no"),
    "inflated: rate": Recipe(161, "norm-inflation", ("optimizer.learning_rate=4e-3",)),
    "noisy: random": Recipe(131, "noisy-reward", wrapper="noise"),
    "noisy: moody": Recipe(132, "noisy-reward", wrapper="moody"),
    "collapse: plain pictures": Recipe(
        141, "mode-collapse", ("optimizer.learning_rate=5e-3",), trained="jpeg-compressibility"
    ),
    "collapse: strength": Recipe(142, "mode-collapse", ("grpo.strength=0.01",)),
    "stalled: rate": Recipe(151, "stalled", ("optimizer.learning_rate=1e-7",), iterations=LONG),
}


def healthy(number: int) -> Recipe:
    """Prompts, seed and learning rate differ; the last one is as long as a run must be to be called stalled."""
    iterations = LONG if number == HEALTHY - 1 else ITERATIONS
    rate = (5e-4, 1e-3)[number % 2]
    return Recipe(1000 + number, settings=(f"optimizer.learning_rate={rate}",), iterations=iterations)


RECIPES = {**{f"healthy {n:02}": healthy(n) for n in range(HEALTHY)}, **SICK}


def drawn(seed: int) -> list[str]:
    """Captions of PROMPTS emoji, each on a background of its own."""
    random_numbers = random.Random(seed)
    emoji = random_numbers.sample(TAUGHT, PROMPTS)
    backgrounds = random_numbers.sample(range(len(BACKGROUNDS)), PROMPTS)
    return [caption(EMOJI.index(e), b) for e, b in zip(emoji, backgrounds, strict=True)]


class Collector(list):
    """A listener: the metrics of each iteration."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, IterationDone):
            self.append(event.metrics)

    def curves(self) -> dict[str, list[float | None]]:
        """Values by name, None where an iteration has none; the clock is left out."""
        names = sorted({name for metrics in self for name in metrics if not name.startswith(("seconds", "memory"))})
        return {name: [rounded(metrics.get(name)) for metrics in self] for name in names}


def rounded(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.5g}")


def record(recipe: Recipe, folder: Path) -> dict[str, object]:
    config = config_of(recipe, folder)
    collector, started = Collector(), time.monotonic()

    def load(config: Config) -> Setup:
        setup = prepare(config)
        if recipe.wrapper:
            rewards = dict(setup.rewards)
            rewards[recipe.trained] = WRAPPERS[recipe.wrapper](rewards[recipe.trained])
            setup = replace(setup, rewards=rewards)
        return setup

    ending, setup = start_run(config, listeners=[collector], load=load)
    return {
        "sickness": recipe.sickness,
        "prompts": list(config.prompts),
        "settings": {"grpo": asdict(config.grpo), "optimizer": asdict(config.optimizer), "seed": config.run.seed},
        "weights": config.weights,
        "held_out": [r.label for r in config.rewards if r.held_out],
        "reason": str(ending),
        "seconds": round(time.monotonic() - started),
        "tested": tested(setup),
        "curves": collector.curves(),
    }


def config_of(recipe: Recipe, folder: Path) -> Config:
    path = folder / "recipe.toml"
    path.write_text(SETTINGS, "utf-8")
    places = [f"run.folder={str(folder / 'run')!r}", f"run.iterations={recipe.iterations}"]
    return load_config(path, [*recipe.overrides(), *places])


def tested(setup: Setup) -> dict[str, Mapping[str, float]]:
    """Before and after on TESTED fixed pictures of the run's own prompts: what really became of it."""
    prompts = [setup.config.prompts[n % len(setup.config.prompts)] for n in range(TESTED)]
    conditioning: Conditioning = setup.conditioning[[setup.config.prompts.index(p) for p in prompts]]
    seeds = list(range(9_000_000, 9_000_000 + TESTED))
    with setup.policy.reference():
        before = sample(setup, conditioning, prompts, seeds)
    after = sample(setup, conditioning, prompts, seeds)
    compared = {name: compare(before.scores[name], after.scores[name]) for name in before.scores}
    return {name: {k: rounded(v) for k, v in asdict(c).items()} for name, c in compared.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "neighbor-grpo-recorded")
    parser.add_argument("--only", default="", help="runs whose name has this text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name, recipe in RECIPES.items():
        path = arguments.work / f"{name.replace(': ', '-').replace(' ', '-').replace(',', '')}.json"
        if arguments.only in name and not path.exists():
            with tempfile.TemporaryDirectory() as folder:
                recorded = {"name": name, **record(recipe, Path(folder))}
            path.write_text(json.dumps(recorded), "utf-8")
            print(name, recorded["reason"], f"{recorded['seconds']} s", recorded["tested"], flush=True)
    made = [json.loads(path.read_text("utf-8")) for path in sorted(arguments.work.glob("*.json"))]
    runs = {run["name"]: run for run in [*map(json.loads, TARGET.open(encoding="utf-8")), *made]}
    lines = [json.dumps(runs[name], separators=(",", ":")) for name in sorted(runs) if name in RECIPES]
    TARGET.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{len(made)} of {len(lines)} runs made: {TARGET}, {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
