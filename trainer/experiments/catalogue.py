"""The experiments, each a set of arms: what they ask, and which settings they compare."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..choices import PROBED
from .tasks import preset, toml


@dataclass(frozen=True)
class Arm:
    name: str
    overrides: Sequence[str] = ()
    rates: Sequence[float] = ()  # learning rates: an arm is judged by its best; empty: the task's
    noise: tuple[str, float] | None = None  # kind and amount, of the trained reward: see `noisy`
    tasks: Sequence[str] = ()  # empty: all of the experiment
    marks: int = 0  # tests on the way; 0: the experiment's


@dataclass(frozen=True)
class Experiment:
    """Arms to compare: each is a change of the task's own settings, `composition` on scenes, the defaults on emoji."""

    question: str
    arms: Sequence[Arm]
    tasks: Sequence[str] = ("scenes", "emoji")
    budget: float = 40.0  # seconds of training, of one thread
    marks: int = 2  # tests on the way, the last at the end
    tested_at: Sequence[int] = ()  # solver steps of the tested pictures; empty: the task's


def grpo(**values: object) -> list[str]:
    return [f"grpo.{name}={toml(value)}" for name, value in values.items()]


def crossed(anchors: int, steps: int) -> list[str]:
    return grpo(anchors=anchors, trained_steps=steps, pairing="crossed")


def method(name: str, marks: int = 0) -> Arm:
    return Arm(name, [preset(name)], marks=marks)


NOISES = [("gaussian", 1.0), ("flipped", 0.1), ("flipped", 0.3), ("flipped", 0.5), ("pure", 1.0)]
TRUSTED = {
    "clip .2": [],
    "clip .01": grpo(clip=0.01),
    "element-mean, clip 1e-4": grpo(clip=1e-4, temperature_mode="element-mean"),
    "divergence 1e-3": grpo(clip=1e-3, trust="kl"),
}
FREE = grpo(hold=0.0)
HELD = grpo(hold=5.0)

EXPERIMENTS = {
    "baselines": Experiment(
        "What does each method reach in the same time?",
        [
            method("composition", marks=20),
            Arm("composition at 3e-3", [preset("composition")], rates=(3e-3,), tasks=("scenes",), marks=20),
            method("defaults"),
            method("paper"),
            method("flow-grpo-cheap"),
            method("flow-grpo"),
            method("dance-grpo"),
            method("mix-grpo"),
            method("nft"),
        ],
        budget=100.0,
        marks=4,
    ),
    "rivals": Experiment(
        "Does every method learn, from a reward that is easily raised?",
        [
            Arm(name, [preset(name)], rates=(1e-3, 3e-3))
            for name in ("paper", "flow-grpo-cheap", "flow-grpo", "dance-grpo", "mix-grpo", "nft")
        ],
        tasks=("cheated",),
    ),
    "strength": Experiment(
        "How far should the neighbours be from the base noise?",
        [*(Arm(f"s {s}", grpo(strength=s)) for s in PROBED), Arm("as a probe finds it", grpo(probe=8))],
    ),
    "anchors": Experiment(
        "How many anchors, at how many steps?",
        [
            *(Arm(f"B {b}", grpo(anchors=b), tasks=("scenes",)) for b in (1, 2, 4, 8)),
            Arm("B 1 at all steps", tasks=("emoji",)),
            *(Arm(f"B {b} K {k}", crossed(b, k), tasks=("emoji",)) for b, k in ((1, 4), (4, 4), (4, 8))),
        ],
    ),
    "steps": Experiment(
        "Which of the solver's steps should be trained?",
        [
            Arm("all", [*FREE, *grpo(trained_steps=0)]),
            Arm("random 2", [*FREE, *crossed(4, 2), *grpo(step_choice="random")]),
            Arm("late 2, the others held", [*HELD, *crossed(4, 2), *grpo(step_choice="late")]),
            Arm("early 2, the others held", [*HELD, *crossed(4, 2), *grpo(step_choice="early")]),
            Arm("early 1", [*FREE, *crossed(4, 1), *grpo(step_choice="early")]),
            Arm("early 1, the others held", [*HELD, *crossed(4, 1), *grpo(step_choice="early")]),
        ],
    ),
    "hold": Experiment(
        "If the first step alone is trained, how firmly should the others be held?",
        [Arm(f"hold {weight:g}", grpo(hold=weight)) for weight in (0.0, 1.0, 5.0, 20.0)],
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
    ),
    "guards": Experiment(
        "A reward that is easily cheated: which guard keeps more of the held-out one, at as much of the trained one?",
        [
            Arm("none"),
            *(
                Arm(f"{guard}, weight {weight:g}", grpo(guard=guard, kl_weight=weight))
                for guard, weights in (
                    ("policy", (0.1, 1.0, 10.0)),
                    ("velocity", (1.0, 10.0, 100.0)),
                    ("norm", (10.0, 100.0)),
                )
                for weight in weights
            ),
        ],
        tasks=("cheated",),
    ),
    "temperature": Experiment(
        "One softmax temperature for a group, or one a step?",
        [Arm(mode, grpo(temperature_mode=mode)) for mode in ("scale-free", "element-mean")],
    ),
    "reward-noise": Experiment(
        "What does it learn from a reward that is wrong, and does scoring twice help?",
        [
            Arm(
                f"{kind} {amount:g}{', scored twice' if times > 1 else ''}",
                grpo(scorings=times),
                rates=(1e-3,),  # the demo's: the best of three would show chance as learning
                noise=(kind, amount),
            )
            for kind, amount in NOISES
            for times in (1, 2)
        ],
    ),
    "quasi-norm": Experiment(
        "Does the quasi-norm help?", [Arm(f"p {p}", grpo(quasi_norm=p)) for p in (0.5, 0.8, 1.2, 2.0)]
    ),
    "leads": Experiment(
        "What is better than the task's own settings?",
        [
            Arm("as it is"),
            Arm("distance next", grpo(distance="next"), tasks=("scenes",)),
            Arm("distance clean", grpo(distance="clean")),
            Arm("distance end", grpo(distance="end"), tasks=("emoji",)),
            Arm("2 steps", ["sampling.steps=2"]),
            Arm("4 steps", ["sampling.steps=4"], tasks=("emoji",)),
            Arm("8 steps", ["sampling.steps=8"], tasks=("scenes",)),
            Arm("batch's spread", grpo(spread="batch")),
            Arm("soft bound 1", grpo(advantage_bound=1.0)),
            Arm("jitter .5", ["sampling.jitter=0.5"]),
            Arm("warm-up 5", ["optimizer.warmup=5"]),
            Arm("beta2 .99", ["optimizer.beta2=0.99"]),
            Arm("beta2 .9", ["optimizer.beta2=0.9"]),
        ],
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
