"""Checks of the scores: what is trained, what is held out, and whether they tell the candidates apart at all."""

import math

from .record import SHORTEST, Finding, Record, standard_errors

FALLEN = 4.0  # standard errors by which a held-out reward fell
RISEN = 3.0  # and by which a trained one rose meanwhile
SURE = 3.0  # standard errors of a share, and of a fall
FLAT, FLATTEST = 0.1, 0.5  # shares of groups without advantages
INDISTINCT = 0.005  # spread within a group, of the spread between groups
CHANCE = 0.2  # share of a score's variance that a group has in common; with less of it chance decides
NEAR = 0.7  # strength up to which neighbours share half of their noise or more
LIKELY = 2.0  # standard errors either way: 95 %
JUDGED = 64  # iterations from which on a run can be stalled


def reward_hacking(record: Record) -> Finding | None:
    """A held-out reward has fallen from its best, and a trained one has risen since then."""
    for held_out in record.held_out:
        watched = record.passes(f"reward/{held_out}")
        best, last = watched.best(1), watched.last()
        if best is None:
            continue
        fall = standard_errors(best, last, watched.noise)
        for trained, weight in record.weights.items():
            curve = record.passes(f"reward/{trained}")
            then, now = curve.at(best.iterations), curve.at(last.iterations)
            rise = math.copysign(1, weight) * standard_errors(then, now, curve.noise)
            if fall <= -FALLEN and rise >= RISEN:
                return Finding(
                    "reward-hacking",
                    "problem",
                    f"{trained} went from {then.mean:.4g} to {now.mean:.4g} as it should ({rise:.1f} standard "
                    f"errors), while the held-out {held_out} fell from {best.mean:.4g} to {last.mean:.4g} "
                    f"({-fall:.1f} standard errors).",
                    "Stop, and take a checkpoint of before. Then lower quasi_norm (p), raise the strength (s), "
                    "or train on several rewards.",
                    best.end,
                )
    return None


def flat_rewards(record: Record) -> Finding | None:
    """Groups without advantages are many, or a trained reward hardly differs within a group."""
    skipped = record.curve("skipped_groups").last()
    if len(skipped) >= SHORTEST:
        groups = len(skipped) * record.prompts_per_iteration
        share = skipped.mean / record.prompts_per_iteration
        if lowest_share(share, groups) > FLAT:
            learnt, since = risen(record), int(skipped.iterations[0])
            what = f"{share:.0%} of the last {groups} groups taught nothing: their rewards were all equal"
            if learnt:
                advice = "What the reward asks for is nearly reached: stop, or give it harder prompts."
                return Finding("flat-rewards", "warning", f"{what}, now that {learnt}.", advice, since)
            severity = "problem" if share > FLATTEST else "warning"
            advice = "Raise the strength (s), or use a reward that tells such candidates apart."
            return Finding("flat-rewards", severity, f"{what}, or no numbers.", advice, since)
    for name in record.weights:
        within, between = record.curve(f"reward_std/{name}").last(), spread_between_groups(record, name)
        if len(within) >= SHORTEST and within.mean < INDISTINCT * between:
            return Finding(
                "flat-rewards",
                "warning",
                f"{name} differs by {within.mean:.2g} within a group and by {between:.2g} between groups: "
                "the candidates are hardly told apart.",
                "Raise the strength (s), or use another reward.",
                int(within.iterations[0]),
            )
    return None


def risen(record: Record) -> str:
    """Which trained reward rose from its beginning to now, and by how much; empty if none did for certain."""
    for name, weight in record.weights.items():
        curve = record.passes(f"reward/{name}")
        first, last = curve.part(0, len(curve.last())), curve.last()
        if len(curve) >= 2 * SHORTEST and math.copysign(1, weight) * standard_errors(first, last, curve.noise) >= RISEN:
            return f"{name} went from {first.mean:.4g} to {last.mean:.4g}"
    return ""


def lowest_share(share: float, count: int) -> float:
    """Lower bound of a share that was seen in `count` cases (Wilson), SURE standard errors below."""
    z = SURE**2 / count
    return (share + z / 2 - math.sqrt(z * (share * (1 - share) + z / 4))) / (1 + z)


def spread_between_groups(record: Record, name: str) -> float:
    """Standard deviation of the groups' mean rewards, for one prompt: of different base noises."""
    curve = record.passes(f"reward/{name}")
    return math.sqrt(curve.variance * curve.period * record.prompts_per_iteration) if len(curve) > 1 else 0.0


def noisy_reward(record: Record) -> Finding | None:
    """A score has little to do with the base noise that neighbours share: chance decides it.

    Of scores that are chance alone, the means of groups vary by 1 / G of the variance within a group (their ratio is
    F = 1). A share rho of the variance that a group has in common makes it F = 1 + G * rho / (1 - rho).
    """
    if record.strength > NEAR:
        return None
    for name in record.weights:
        within, curve = record.curve(f"reward_std/{name}"), record.passes(f"reward/{name}")
        if len(curve) < 2 * SHORTEST or not len(within):
            continue
        g = record.group_size
        chance = (within.values**2).mean() / (g - 1)  # variance of a group's mean if its scores are independent
        if not chance:
            continue
        ratio = spread_between_groups(record, name) ** 2 / chance
        # differences of neighbours have a third less to say than deviations from a known mean
        highest = ratio / lowest_variance(2 / 3 * (len(curve) - 1))
        if (highest - 1) / (highest - 1 + g) < CHANCE:
            share = max(0.0, (ratio - 1) / (ratio - 1 + g))
            return Finding(
                "noisy-reward",
                "problem",
                f"Neighbours of one base noise agree in {name} little more than strangers do: {share:.0%} of its "
                f"variance is common to a group (F = {ratio:.2f}, {len(curve)} values).",
                "Use a reward that gives similar pictures similar scores, or average several judgements of each.",
                0,
            )
    return None


def lowest_variance(degrees: float) -> float:
    """What a variance of 1 is measured as, LIKELY standard errors below (Wilson and Hilferty's chi-squared)."""
    return (1 - 2 / (9 * degrees) - LIKELY * math.sqrt(2 / (9 * degrees))) ** 3


def stalled(record: Record) -> Finding | None:
    """From the first third to the last, no trained reward can have risen by what it differs within one group.

    Healthy runs of the embedded model rose by 1 to 6 times that in 32 iterations: one of JUDGED should have. A clear
    fall is no stall but something worse.
    """
    texts = []
    for name, weight in record.weights.items():
        curve, within = record.passes(f"reward/{name}"), record.curve(f"reward_std/{name}")
        third = len(curve) // 3
        if third < SHORTEST or curve.end < JUDGED or not len(within):
            return None
        first, last = curve.part(0, third), curve.part(len(curve) - third, len(curve))
        error = curve.noise * math.sqrt(2 / third)
        rise = math.copysign(1, weight) * (last.mean - first.mean)
        useful = within.mean
        if rise + LIKELY * error > useful or rise < -SURE * error:
            return None
        texts.append(f"{name} went from {first.mean:.4g} to {last.mean:.4g} (+- {error:.2g}), and differs by "
                     f"{useful:.2g} within a group")  # fmt: skip
    if not texts:
        return None
    return Finding(
        "stalled",
        "warning",
        f"Nothing was gained in {curve.end} iterations: {'; '.join(texts)}.",
        "Raise the learning rate, or the strength (s) so that there is more to choose from.",
        int(curve.iterations[0]),
    )
