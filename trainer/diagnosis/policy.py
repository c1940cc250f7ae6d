"""Checks of the policy: whether its candidates still differ, and whether its updates are too large."""

import math

import numpy as np
from numpy.typing import NDArray

from .record import SHORTEST, Curve, Finding, Record, standard_errors

ALIKE = 1 / 32  # root mean square, in units of a latent's standard deviation: what no eye and no reward sees
TINY = 1e-12  # below it a diversity is none
NARROWER = 0.5  # of the diversity at the best
SURE = 5.0  # standard errors
CLIPPED = 0.5  # share of the terms of an iteration
SPIKE = 10.0  # times the median gradient norm
UNEQUAL = 0.01  # |rho - 1| before an update, which should be 0
OTHER = 0.02  # of its size, how far the velocity before an update may be from the rollout's: bfloat16's rounding
AWAY = 0.5  # of its size, how far the velocity may be from the base model's: trainings that went well end at 0.1 to 0.3
LONGER, BURST = 1.2, 1.4  # its length, in the base model's: trainings that went well end at 0.98 to 1.14
MOVED = 0.2  # the same before the last of several updates: healthy runs move 0.02 to 0.05


def mode_collapse(record: Record) -> Finding | None:
    """The candidates of a group are alike from the start, or became so."""
    curve = record.passes("diversity")
    curve = curve.at(curve.iterations[curve.iterations >= record.settled])  # another strength brings another diversity
    logs, last = Curve(curve.iterations, np.log(np.maximum(curve.values, TINY)), curve.period), curve.last()
    if len(last) < SHORTEST:
        return None
    advice = "Raise the strength (s); if the policy narrows all the same, lower the learning rate."
    apart = math.sqrt(last.mean)
    if apart < ALIKE:
        return Finding(
            "mode-collapse",
            "problem",
            f"The candidates of a group are all but the same picture: their latents differ by {apart:.2g} "
            f"of a standard deviation.",
            advice,
            int(last.iterations[0]),
        )
    best, now = logs.best(1), logs.last()
    if best is None:
        return None
    fall, left = standard_errors(best, now, logs.noise), math.exp(now.mean - best.mean)
    if fall > -SURE or left > NARROWER:
        return None
    return Finding(
        "mode-collapse",
        "problem" if left < NARROWER**2 else "warning",
        f"The candidates of a group came closer: their mean squared distance fell from "
        f"{math.exp(best.mean):.3g} to {math.exp(now.mean):.3g}, to {left:.0%} ({-fall:.1f} standard errors).",
        advice,
        best.end,
    )


def trust_region(record: Record) -> Finding | None:
    """Updates went too far: terms were clipped, gradients shot up, the base model was left, the trained reward fell."""
    evidence = (
        _clipped(record) or _unequal(record) or _moved(record) or _away(record) or _spike(record) or _fallen(record)
    )
    if evidence is None:
        return None
    text, since, severity = evidence
    advice = "Lower the learning rate, or the updates of each rollout; go on from a checkpoint of before."
    return Finding("trust-region", severity, text, advice, since)


def _clipped(record: Record) -> tuple[str, int, str] | None:
    recent = record.curve("clip_fraction").last()
    if not len(recent) or recent.values.max() <= CLIPPED:
        return None
    worst = int(recent.values.argmax())
    at = int(recent.iterations[worst])
    return (f"{recent.values[worst]:.0%} of the objective's terms were clipped in iteration {at}: the ratio left "
            f"1 +- {record.clip:g}.", at, "problem")  # fmt: skip


def _unequal(record: Record) -> tuple[str, int, str] | None:
    """The velocities tell it at any size; the ratio is what runs of before have, and is blind for large pictures."""
    for name, limit, what in (
        ("velocity_error", OTHER, "The velocity differs by {:.2g} of its size from the rollout's"),
        ("ratio_error", UNEQUAL, "|rho - 1| is {:.2g}"),
    ):
        recent = record.curve(name).last()
        if len(recent) and np.median(recent.values) > limit:
            text = f"{what.format(np.median(recent.values))} before the first update of an iteration, and it should "
            text += "be 0: rollout and update do not compute the same policy."
            return text, int(recent.iterations[0]), "warning"
    return None


def _moved(record: Record) -> tuple[str, int, str] | None:
    """Several updates on one rollout went so far that its candidates tell little of the policy any more.

    The clip fraction and the KL say the same for small pictures alone: both fall with the number of latent elements.
    """
    recent = record.curve("velocity_shift").last()
    if not len(recent) or np.median(recent.values) <= MOVED:
        return None
    return (f"The updates on one rollout move the velocity by {np.median(recent.values):.0%} of its size.",
            int(recent.iterations[0]), "problem")  # fmt: skip


def _away(record: Record) -> tuple[str, int, str] | None:
    """The velocity is another than the base model's at the same states, in whatever direction."""
    curve = record.curve("velocity_change")
    if not len(curve) or curve.values[-1] <= AWAY:
        return None
    text = f"The velocity is off the base model's by {curve.values[-1]:.0%} of its size."
    return text, int(curve.iterations[since(curve.values > AWAY)]), "problem"


def norm_inflation(record: Record) -> Finding | None:
    """The velocity became longer than the base model's, which drives up contrast and colours whatever is drawn."""
    curve = record.curve("velocity_norm")
    if not len(curve) or curve.values[-1] <= LONGER:
        return None
    return Finding(
        "norm-inflation",
        "problem" if curve.values[-1] > BURST else "warning",
        f"The velocity is {curve.values[-1]:.2f} times as long as the base model's at the same states.",
        "Use the LoRA at a lower strength; or go on from a checkpoint of before with a lower learning rate, or with "
        "guard = norm and a kl_weight.",
        int(curve.iterations[since(curve.values > LONGER)]),
    )


def since(beyond: NDArray[np.bool_]) -> int:
    """Where the last stretch of true values begins, of some that end with one."""
    within = np.flatnonzero(~beyond)
    return int(within[-1]) + 1 if len(within) else 0


def _spike(record: Record) -> tuple[str, int, str] | None:
    """A gradient far above the run's median: in healthy runs the highest of fifty was below four times of it."""
    curve = record.curve("grad_norm")
    recent = curve.last()
    if len(curve) < 2 * SHORTEST:
        return None
    median, worst = float(np.median(curve.values)), int(recent.values.argmax())
    if recent.values[worst] <= SPIKE * median:
        return None
    norm, at = float(recent.values[worst]), int(recent.iterations[worst])
    return (f"The gradient's norm rose to {norm:.3g} in iteration {at}, {norm / median:.0f} times its median.",
            at, "warning")  # fmt: skip


def _fallen(record: Record) -> tuple[str, int, str] | None:
    for name, weight in record.weights.items():
        curve = record.passes(f"reward/{name}")
        best, last = curve.best(weight), curve.last()
        if best is None:
            continue
        rise = math.copysign(1, weight) * standard_errors(best, last, curve.noise)
        if rise <= -SURE:
            return (f"The trained {name} itself went the wrong way, from {best.mean:.4g} to {last.mean:.4g} "
                    f"({-rise:.1f} standard errors).", best.end, "problem")  # fmt: skip
    return None
