"""The experiments, each a set of arms: what they ask, and which settings they compare."""

from collections.abc import Sequence
from dataclasses import dataclass

from .tasks import preset_overrides, toml


@dataclass(frozen=True)
class Arm:
    name: str
    overrides: Sequence[str] = ()
    rates: Sequence[float] = ()  # learning rates: an arm is judged by its best; empty: the task's
    noise: tuple[str, float] | None = None  # kind and amount, of the trained reward: see `noisy`


@dataclass(frozen=True)
class Experiment:
    question: str
    arms: Sequence[Arm]
    tasks: Sequence[str] = ("scenes", "emoji")
    budget: float = 100.0  # seconds of training, of one thread
    marks: int = 4  # tests on the way, the last at the end
    tested_at: Sequence[int] = ()  # solver steps of the tested pictures; empty: the task's


def grpo(**values: object) -> list[str]:
    return [f"grpo.{name}={toml(value)}" for name, value in values.items()]


def crossed(anchors: int, steps: int) -> list[str]:
    return grpo(anchors=anchors, trained_steps=steps, pairing="crossed")


NOISES = [("gaussian", 1.0), ("flipped", 0.1), ("flipped", 0.3), ("flipped", 0.5), ("pure", 1.0)]
EARLY = [*crossed(4, 1), *grpo(step_choice="early")]
FEW = ["sampling.steps=4"]
COMPOSITION = preset_overrides("composition")
TRUSTED = {
    "clip .2": [],
    "clip .01": grpo(clip=0.01),
    "element-mean, clip 1e-4": grpo(clip=1e-4, temperature_mode="element-mean"),
    "divergence 1e-3": grpo(clip=1e-3, trust="kl"),
}

EXPERIMENTS = {
    "baselines": Experiment(
        "What does each method reach in the same time?",
        [
            Arm("neighbor"),
            Arm("composition", COMPOSITION),
            Arm("paper", preset_overrides("paper")),
            Arm("flow-grpo", preset_overrides("flow-grpo")),
            Arm("flow-grpo cheap", preset_overrides("flow-grpo-cheap")),
            Arm("dance-grpo", preset_overrides("dance-grpo")),
            Arm("mix-grpo", preset_overrides("mix-grpo")),
            Arm("nft", preset_overrides("nft")),
        ],
    ),
    "strength": Experiment(
        "How far should the neighbours be from the base noise?",
        [Arm(f"s {s}", grpo(strength=s)) for s in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)],
    ),
    "anchors": Experiment(
        "How many anchors, at how many steps?",
        [Arm("B 1 at all steps"), *(Arm(f"B {b} K {k}", crossed(b, k)) for b, k in ((1, 4), (4, 4), (1, 8), (4, 8)))],
    ),
    "steps": Experiment(
        "Which of the solver's steps should be trained?",
        [
            Arm("all, one anchor each"),
            Arm("random 4", crossed(2, 4)),
            Arm("late 4", [*crossed(2, 4), *grpo(step_choice="late")]),
            Arm("late 2", [*crossed(4, 2), *grpo(step_choice="late")]),
            Arm("early 4", [*crossed(2, 4), *grpo(step_choice="early")]),
            Arm("early 1", [*crossed(8, 1), *grpo(step_choice="early")]),
            Arm("early 1, the others held", [*EARLY, *grpo(hold=5.0)]),
        ],
    ),
    "hold": Experiment(
        "If the first step alone is trained, how firmly should the others be held?",
        [Arm(f"hold {weight:g}", [*COMPOSITION, *grpo(hold=weight)]) for weight in (0.0, 1.0, 5.0, 20.0)],
        tasks=("scenes",),
    ),
    "trust-region": Experiment(
        "Where does it break, and does the clip notice?",
        [
            Arm(
                f"{name}, {updates} updates",
                [*settings, *grpo(updates_per_rollout=updates)],
                rates=(3e-4, 1e-3, 3e-3, 1e-2),
            )
            for name, settings in TRUSTED.items()
            for updates in (1, 2, 4)
        ],
        budget=60.0,
    ),
    "temperature": Experiment(
        "One softmax temperature for a group, or one a step?",
        [Arm(mode, grpo(temperature_mode=mode)) for mode in ("scale-free", "element-mean")],
    ),
    "reward-noise": Experiment(
        "What does it learn from a reward that is wrong, and does scoring twice help?",
        [
            Arm(f"{kind} {amount:g}{', scored twice' if times > 1 else ''}", grpo(scorings=times), noise=(kind, amount))
            for kind, amount in NOISES
            for times in (1, 2)
        ],
    ),
    "quasi-norm": Experiment(
        "Does the quasi-norm help?", [Arm(f"p {p}", grpo(quasi_norm=p)) for p in (0.5, 0.8, 1.2, 2.0)]
    ),
    "leads": Experiment(
        "What is better than the defaults?",
        [
            Arm("defaults"),
            Arm("distance clean", grpo(distance="clean")),
            Arm("distance end", grpo(distance="end")),
            Arm("early 1, B 4", EARLY),
            Arm("early 1, B 4, distance end", [*EARLY, *grpo(distance="end")]),
            Arm("4 steps", FEW),
            Arm("4 steps, early 1, B 4", [*FEW, *EARLY]),
            Arm("4 steps, early 1, B 4, distance end", [*FEW, *EARLY, *grpo(distance="end")]),
            Arm("4 steps, distance end", [*FEW, *grpo(distance="end")]),
            Arm("batch's spread", grpo(spread="batch")),
            Arm("soft bound 1", grpo(advantage_bound=1.0)),
            Arm("jitter .5", ["sampling.jitter=0.5"]),
            Arm("warm-up 10", ["optimizer.warmup=10"]),
            Arm("beta2 .99", ["optimizer.beta2=0.99"]),
            Arm("beta2 .9", ["optimizer.beta2=0.9"]),
        ],
        marks=2,
    ),
    "antithetic": Experiment(
        "Do neighbours in pairs, one on either side, help?",
        [Arm("free"), Arm("antithetic", grpo(antithetic=True))],
    ),
    "prompts": Experiment(
        "How many prompts an iteration, at equal time?",
        [Arm(f"P {p}", grpo(prompts_per_iteration=p)) for p in (1, 2, 4, 8, 16)],
    ),
    "groups": Experiment(
        "How large a group, at equal time?", [Arm(f"G {g}", grpo(group_size=g)) for g in (4, 8, 12, 24)]
    ),
    "few-steps": Experiment(
        "Does training with few steps hold for many?",
        [Arm(f"T {t}", [f"sampling.steps={t}"]) for t in (2, 4, 8)],
        tested_at=(8, 28),
    ),
}
