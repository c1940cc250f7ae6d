"""After a run: at which strength its LoRA is best."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.state import Setup
from ..models.lora.strength import at_strength
from ..settings.config import Config
from .evaluate import Difference, compare, sample

STRENGTHS = tuple(n / 10 for n in range(4, 13))  # 0.4 to 1.2


@dataclass(frozen=True)
class AtStrength:
    strength: float
    differences: dict[str, Difference]  # of each reward, from the base model


def measure(
    setup: Setup,
    prompts: Sequence[str],
    seeds: Sequence[int],
    strengths: Iterable[float] = STRENGTHS,
    on_done: Callable[[AtStrength], None] = lambda found: None,
) -> list[AtStrength]:
    """Every reward at each strength, on one picture for each (prompt, seed) pair.

    `setup.config.prompts` must contain the prompts.
    """
    rows = [setup.config.prompts.index(p) for p in prompts]
    conditioning = setup.conditioning[rows]
    with setup.policy.reference():
        before = sample(setup, conditioning, prompts, seeds)
    found = []
    for strength in strengths:
        with at_strength(setup.policy.network, setup.policy.adapter, strength):
            after = sample(setup, conditioning, prompts, seeds)
        found.append(AtStrength(strength, {n: compare(before.scores[n], after.scores[n]) for n in before.scores}))
        on_done(found[-1])
    return found


def recommended(found: Sequence[AtStrength], trained: Sequence[str], held_out: Sequence[str]) -> AtStrength:
    """The strength at which the rewards that were not trained on are best, as what was trained on may be cheated.

    Of those within a standard error of the best, the one with the highest trained rewards; without held-out rewards,
    the one with the highest trained ones. Each reward counts in units of its own standard error.
    """

    def rise(at: AtStrength, names: Sequence[str]) -> float:
        return sum(at.differences[name].difference / unit(found, name) for name in names)

    if not held_out:
        return max(found, key=lambda at: rise(at, trained))
    best = max(rise(at, held_out) for at in found)
    good = [at for at in found if rise(at, held_out) >= best - math.sqrt(len(held_out))]
    return max(good, key=lambda at: rise(at, trained))


def unit(found: Sequence[AtStrength], name: str) -> float:
    """A reward's mean standard error; 1 if it has none."""
    errors = [at.differences[name].standard_error for at in found]
    return sum(errors) / len(errors) or 1.0


def told(found: Sequence[AtStrength], best: AtStrength, pictures: int) -> dict[str, Any]:
    """As JSON takes it: for a program, and for the run."""
    rows = [{"strength": at.strength, "rewards": {n: d.to_dict() for n, d in at.differences.items()}} for at in found]
    return {"strengths": rows, "recommended": best.strength, "pictures": pictures}


def table(config: Config, found: Sequence[AtStrength], best: AtStrength) -> str:
    """For a person: a row a strength, the recommended one marked."""
    names = list(found[0].differences)
    labels = [f"{name} ({'held out' if name in config.held_out else 'trained'})" for name in names]
    lines = ["strength" + "".join(f"{label:>34}" for label in labels)]
    for at in found:
        cells = [in_words(at.differences[name]) for name in names]
        mark = "  <- best" if at is best else ""
        lines.append(f"{at.strength:8.1f}" + "".join(f"{cell:>34}" for cell in cells) + mark)
    return "\n".join([*lines, f"\nrecommended: {best.strength:g}"])


def in_words(d: Difference) -> str:
    return f"{d.after:.4f} ({d.difference:+.4f} +- {d.standard_error:.4f})"
