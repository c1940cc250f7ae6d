"""Checks of the policy: whether its candidates still differ, and whether its updates are too large."""

import math

import numpy as np

from .record import Curve, Finding, Record, standard_errors

ALIKE = 1 / 32  # root mean square, in units of a latent's standard deviation: what no eye and no reward sees
NARROWER = 0.5  # of the diversity at the best
SURE = 5.0  # standard errors
CLIPPED = 0.5  # share of the terms of an iteration
SPIKE = 10.0  # times the median gradient norm
UNEQUAL = 0.01  # |rho - 1| before an update, which should be 0


def mode_collapse(record: Record) -> Finding | None:
    """The candidates of a group are alike from the start, or became so."""
    curve = record.passes("diversity")
    windows = curve.windows()
    if not windows or (curve.values <= 0).any():
        return None
    advice = "Raise the strength (s); if the policy narrows all the same, lower the learning rate."
    apart = math.sqrt(windows[-1].mean)
    if apart < ALIKE:
        return Finding(
            "mode-collapse",
            "problem",
            f"The candidates of a group are all but the same picture: their latents differ by {apart:.2g} "
            f"of a standard deviation.",
            advice,
            int(windows[-1].iterations[0]),
        )
    logs = Curve(curve.iterations, np.log(curve.values), curve.period)
    parts = logs.windows()
    best = max(range(len(parts) - 1), key=lambda n: parts[n].mean)
    fall = standard_errors(parts[best], parts[-1], logs.noise)
    left = math.exp(parts[-1].mean - parts[best].mean)
    if fall > -SURE or left > NARROWER:
        return None
    return Finding(
        "mode-collapse",
        "problem" if left < NARROWER**2 else "warning",
        f"The candidates of a group came closer: their mean squared distance fell from "
        f"{math.exp(parts[best].mean):.3g} to {math.exp(parts[-1].mean):.3g}, to {left:.0%} "
        f"({-fall:.1f} standard errors).",
        advice,
        parts[best].end,
    )


def trust_region(record: Record) -> Finding | None:
    """Updates went too far: most terms were clipped, gradients shot up, or the trained reward itself fell."""
    evidence = _clipped(record) or _unequal(record) or _spike(record) or _fallen(record)
    if evidence is None:
        return None
    text, since, severity = evidence
    advice = "Lower the learning rate, or the updates of each rollout; go on from a checkpoint of before."
    return Finding("trust-region", severity, text, advice, since)


def _recent(curve: Curve) -> Curve | None:
    windows = curve.windows()
    return windows[-1] if windows else curve if len(curve) else None


def _clipped(record: Record) -> tuple[str, int, str] | None:
    recent = _recent(record.curve("clip_fraction"))
    if recent is None or recent.values.max() <= CLIPPED:
        return None
    worst = int(recent.values.argmax())
    at = int(recent.iterations[worst])
    return (f"{recent.values[worst]:.0%} of the objective's terms were clipped in iteration {at}: the ratio left "
            f"1 +- {record.clip:g}.", at, "problem")  # fmt: skip


def _unequal(record: Record) -> tuple[str, int, str] | None:
    recent = _recent(record.curve("ratio_error"))
    if recent is None or np.median(recent.values) <= UNEQUAL:
        return None
    return (f"|rho - 1| is {np.median(recent.values):.2g} before the first update of an iteration, where it should be "
            "0: rollout and update do not compute the same policy.", int(recent.iterations[0]), "warning")  # fmt: skip


def _spike(record: Record) -> tuple[str, int, str] | None:
    """A gradient far above the run's median, in terms of the logarithms' own spread too."""
    curve = record.curve("grad_norm")
    recent = _recent(curve)
    if recent is None or not curve.windows() or (curve.values <= 0).any():
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
        parts = curve.windows()
        if not parts:
            continue
        sign = math.copysign(1, weight)
        best = max(range(len(parts) - 1), key=lambda n: sign * parts[n].mean)
        rise = sign * standard_errors(parts[best], parts[-1], curve.noise)
        if rise <= -SURE:
            return (f"The trained {name} itself went the wrong way, from {parts[best].mean:.4g} to "
                    f"{parts[-1].mean:.4g} ({-rise:.1f} standard errors).", parts[best].end, "problem")  # fmt: skip
    return None
