"""The checks of a run's curves, on curves that are made up so that the answer is known."""

import math
import statistics

import numpy as np
import pytest

from trainer.diagnosis import CHECKS, Record
from trainer.diagnosis.policy import mode_collapse, norm_inflation, trust_region
from trainer.diagnosis.record import Curve, standard_errors
from trainer.diagnosis.rewards import flat_rewards, lowest_share, lowest_variance, noisy_reward, reward_hacking, stalled

N = 60
NAMES = """reward__a reward__h reward_std__a diversity grad_norm clip_fraction ratio_error skipped_groups
velocity_change velocity_norm""".split()


def record(weights=None, prompts=1, per_iteration=1, group_size=8, strength=0.3, **curves) -> Record:
    series = {name.replace("__", "/"): list(enumerate(values)) for name, values in curves.items()}
    return Record(series, weights or {"a": 1.0}, ["h"], prompts, per_iteration, group_size, strength, clip=0.2)


def noise(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


def rising(by: float, seed: int, n: int = N) -> np.ndarray:
    """Noise of standard deviation 1 that rises by so much."""
    return np.linspace(0, by, n) + noise(seed, n)


def test_the_noise_of_a_value_is_found_whatever_the_trend_and_in_spite_of_a_break():
    line = np.linspace(0, 50, 4000)
    for shape in (line, np.sin(line), np.where(line > 20, 300, 0), 0 * line):
        curve = Curve(np.arange(4000), 3 * noise(1, 4000) + shape)
        assert curve.noise == pytest.approx(3, rel=0.05)
    smooth = Curve(np.arange(4000), 3 * noise(1, 4000))
    assert smooth.variance == pytest.approx(9, rel=0.1)


def test_a_rise_is_measured_in_standard_errors_of_the_difference():
    before, after = (Curve(np.arange(4), np.full(4, v)) for v in (1.0, 3.0))
    assert standard_errors(before, after, 0.5) == pytest.approx(2 / math.sqrt(0.25 / 4 + 0.25 / 4))
    assert standard_errors(before, after, 0.0) == math.inf
    assert standard_errors(after, before, 0.0) == -math.inf
    assert standard_errors(before, before, 0.0) == 0.0
    # and distributed as one: the middle two thirds lie within one standard error
    pairs = [(Curve(np.arange(5), noise(s, 5)), Curve(np.arange(9), noise(s + 10_000, 9))) for s in range(2000)]
    assert statistics.pstdev(standard_errors(*pair, 1.0) for pair in pairs) == pytest.approx(1, rel=0.05)


def test_means_of_whole_passes_do_not_depend_on_the_prompts():
    """Five prompts, two in an iteration: a pass is three iterations. Prompts differ by 100, the policy rises by 1."""
    values = [100.0 * (i % 3) + (i // 3) for i in range(40)]
    curve = record(prompts=5, per_iteration=2, reward__a=values).passes("reward/a")
    assert curve.iterations.tolist() == list(range(0, 39, 3))
    assert curve.values == pytest.approx([100 + k for k in range(13)])
    assert curve.end == 39
    short = record(prompts=5, per_iteration=2, reward__a=values[:30]).passes("reward/a")
    assert (short.period, len(short)) == (1, 30)  # too few passes


def test_a_pass_with_a_missing_value_is_left_out():
    values = [float(i // 2) for i in range(30)]
    values[5] = None
    values[8] = math.nan
    curve = record(prompts=2, per_iteration=1, reward__a=values).passes("reward/a")
    assert curve.iterations.tolist() == [0, 2, 6, *range(10, 30, 2)]
    assert curve.values.tolist() == [0, 1, 3, *range(5, 15)]


def test_the_best_window_is_the_one_with_the_highest_mean_before_the_last():
    values = np.array([0.0, 0, 9, 0, 5, 5, 5, 5, 0, 0, 0, 99, 99])
    curve = Curve(np.arange(13), values)
    assert curve.best(1).iterations.tolist() == [4, 5, 6, 7]
    assert curve.best(-1).mean == 9 / 4
    assert curve.last().iterations.tolist() == [9, 10, 11, 12]
    assert len(Curve(np.arange(60), np.zeros(60)).last()) == 10
    assert Curve(np.arange(11), np.zeros(11)).best(1) is None


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_noise_alone_is_no_finding(check):
    """300 runs whose curves move by chance alone. What decides the rewards is the base noise, as with a good judge."""
    alarms = 0
    for seed in range(300):
        r = record(
            reward__a=noise(seed),
            reward__h=noise(seed + 1000),
            reward_std__a=0.3 * np.exp(0.2 * noise(seed + 2000)),
            diversity=0.02 * np.exp(0.3 * noise(seed + 3000)),
            grad_norm=np.exp(0.5 * noise(seed + 4000)),
            clip_fraction=0.1 + 0.02 * noise(seed + 5000),
            ratio_error=[0.0] * N,
            skipped_groups=[0.0] * N,
            velocity_change=0.15 * np.exp(0.2 * noise(seed + 6000)),
            velocity_norm=1.03 + 0.03 * noise(seed + 7000),
        )
        alarms += CHECKS[check](r) is not None
    assert alarms <= 1


def test_a_held_out_reward_that_falls_while_the_trained_one_rises_is_hacking():
    found = reward_hacking(record(reward__a=rising(8, 0), reward__h=-rising(8, 1)))
    assert (found.check, found.severity) == ("reward-hacking", "problem")
    assert "a went from" in found.evidence
    assert "held-out h fell from" in found.evidence
    assert 0 < found.since < 20


def test_a_reward_that_is_to_fall_is_hacked_by_falling():
    assert reward_hacking(record({"a": -1.0}, reward__a=-rising(8, 0), reward__h=-rising(8, 1)))
    assert not reward_hacking(record({"a": -1.0}, reward__a=rising(8, 0), reward__h=-rising(8, 1)))


@pytest.mark.parametrize(("trained", "held_out"), [(8, 8), (0, -8), (-8, -8), (8, 0)])
def test_anything_else_than_up_and_down_is_no_hacking(trained, held_out):
    r = record(reward__a=rising(trained, 0), reward__h=rising(held_out, 1))
    assert not reward_hacking(r)


def test_hacking_that_begins_late_is_dated_and_found():
    late = np.concatenate([np.zeros(80), np.linspace(0, -12, 40)])
    found = reward_hacking(record(reward__a=rising(20, 0, 120), reward__h=late + noise(1, 120)))
    assert 20 < found.since <= 90


def test_without_a_held_out_reward_there_is_no_hacking_to_see():
    assert not reward_hacking(record(reward__a=rising(8, 0)))


def test_the_lower_bound_of_a_share_is_wilsons():
    """It is the share whose own standard error would just explain what was seen."""
    for share, count in ((0.5, 100), (0.2, 30), (1.0, 8)):
        low = lowest_share(share, count)
        assert share - low == pytest.approx(3 * math.sqrt(low * (1 - low) / count))
    assert lowest_share(0.0, 10) == pytest.approx(0, abs=1e-12)


def test_groups_without_advantages_are_counted_against_all_groups():
    none = [0.0] * 20
    few, half, most = ([0.0] * 10 + [k] * 10 for k in (0.4, 2.0, 3.6))
    assert not flat_rewards(record(per_iteration=4, skipped_groups=none))
    assert not flat_rewards(record(per_iteration=4, skipped_groups=few))  # a tenth: chance may do that
    found = flat_rewards(record(per_iteration=4, skipped_groups=half))
    assert (found.severity, found.evidence[:3], found.since) == ("warning", "50%", 16)
    found = flat_rewards(record(per_iteration=4, skipped_groups=most))
    assert (found.severity, found.evidence[:3]) == ("problem", "90%")


def test_groups_without_advantages_after_a_rise_are_no_fault():
    most = [0.0] * 10 + [3.6] * 10
    rose = np.linspace(0, 12, 20) + noise(0, 20)
    for reward, weights, learnt in ((rose, None, True), (-rose, None, False), (-rose, {"a": -1.0}, True)):
        found = flat_rewards(record(weights, per_iteration=4, skipped_groups=most, reward__a=reward))
        assert (found.severity == "warning", "nearly reached" in found.advice) == (learnt, learnt)
        assert ("now that a went from" in found.evidence) == learnt


def test_a_reward_that_hardly_differs_within_a_group_is_flat():
    reward = noise(0)
    assert flat_rewards(record(reward__a=reward, reward_std__a=[0.002] * N)).evidence.startswith("a differs by 0.002")
    assert not flat_rewards(record(reward__a=reward, reward_std__a=[0.05] * N))
    # the group's mean is one of four: groups differ by twice as much
    four = {"prompts": 1, "per_iteration": 4, "reward__a": reward, "reward_std__a": [0.007] * N}
    assert flat_rewards(record(**four))
    assert not flat_rewards(record(**{**four, "per_iteration": 1}))


def test_the_lower_bound_of_a_variance_is_that_of_chi_squared():
    """Against 20,000 drawn variances: 2.3 % lie below two standard errors."""
    for degrees in (6, 20, 60):
        drawn = np.random.default_rng(0).chisquare(degrees, 20_000) / degrees
        assert np.mean(drawn < lowest_variance(degrees)) == pytest.approx(0.0228, abs=0.005)


def judged(rho: float, seed: int = 0, n: int = N, per_iteration: int = 2, g: int = 8) -> dict:
    """Curves of scores of which the share rho of the variance is the base noise's."""
    draw = np.random.default_rng(seed)
    common = math.sqrt(rho) * draw.standard_normal((n, per_iteration, 1))
    scores = common + math.sqrt(1 - rho) * draw.standard_normal((n, per_iteration, g))
    return {"reward__a": scores.mean((1, 2)), "reward_std__a": scores.std(2).mean(1), "per_iteration": per_iteration}


def test_scores_of_chance_are_told_from_those_of_a_judge():
    chance = [noisy_reward(record(**judged(0.0, seed))) for seed in range(50)]
    judge = [noisy_reward(record(**judged(0.6, seed))) for seed in range(50)]
    assert sum(f is not None for f in chance) >= 48
    assert not any(judge)
    assert chance[0].severity == "problem"
    few = [noisy_reward(record(**judged(0.3, seed, n=16))) for seed in range(50)]
    assert sum(f is not None for f in few) <= 3  # too little is known of a mediocre judge


def test_the_prompts_of_a_random_judge_may_differ():
    curves = judged(0.0, n=160, per_iteration=1)
    curves["reward__a"] = curves["reward__a"] + np.array([0, 40, -20, 7] * 40)
    assert noisy_reward(record(prompts=4, **curves))


def test_a_strength_at_which_neighbours_share_little_proves_nothing():
    assert not noisy_reward(record(strength=0.9, **judged(0.0)))


def test_candidates_that_come_closer_collapse():
    log = 0.3 * noise(0)
    falling = np.linspace(0, -2.5, N)
    found = mode_collapse(record(diversity=0.05 * np.exp(log + falling)))
    assert found.severity == "problem"
    assert "came closer" in found.evidence
    found = mode_collapse(record(diversity=0.05 * np.exp(log / 3 + 0.4 * falling)))
    assert found.severity == "warning"
    assert not mode_collapse(record(diversity=0.05 * np.exp(log - falling)))
    assert not mode_collapse(record(diversity=0.05 * np.exp(log + 0.2 * falling)))  # by a third
    assert not mode_collapse(record(diversity=0.05 * np.exp(5 * log)))  # by chance


def test_another_strength_is_no_collapse():
    diversity = np.concatenate([np.full(30, 0.09), np.full(30, 0.01)]) * np.exp(0.1 * noise(0))
    assert mode_collapse(record(diversity=diversity))
    changed = record(strength=0.1, diversity=diversity)
    changed.curves["strength"] = list(enumerate([0.3] * 30 + [0.1] * 30))
    assert changed.settled == 30
    assert not mode_collapse(changed)


def test_candidates_that_are_alike_from_the_start_are_collapsed():
    found = mode_collapse(record(diversity=[1e-4] * 5))
    assert "differ by 0.01 of a standard deviation" in found.evidence
    assert mode_collapse(record(diversity=[0.0] * 5))
    assert not mode_collapse(record(diversity=[4e-3] * 5))
    assert not mode_collapse(record(diversity=[1e-4] * 3))  # too early


def test_an_iteration_with_most_terms_clipped_left_the_trust_region():
    clipped = [0.1] * 20
    assert not trust_region(record(clip_fraction=clipped))
    clipped[18] = 0.75
    found = trust_region(record(clip_fraction=clipped))
    assert found.evidence == "75% of the objective's terms were clipped in iteration 18: the ratio left 1 +- 0.2."
    assert (found.severity, found.since) == ("problem", 18)
    assert not trust_region(record(clip_fraction=[0.1, 0.75, *[0.1] * 18]))  # long over


def test_a_ratio_other_than_one_before_the_update_is_told():
    assert "rollout and update do not compute the same" in trust_region(record(ratio_error=[0.05] * 6)).evidence
    assert not trust_region(record(ratio_error=[1e-3] * 6))


def test_another_velocity_before_the_update_is_told_at_sizes_at_which_the_ratio_is_blind():
    blind = [1e-3] * 6
    found = trust_region(record(ratio_error=blind, velocity_error=[0.3] * 6))
    assert found.evidence.startswith("The velocity differs by 0.3 of its size from the rollout's")
    assert found.severity == "warning"
    assert not trust_region(record(ratio_error=blind, velocity_error=[0.015] * 6))  # bfloat16


def test_updates_that_move_the_policy_far_are_told_where_nothing_is_clipped():
    found = trust_region(record(clip_fraction=[0.0] * 6, velocity_shift=[0.4] * 6))
    assert found.evidence == "The updates on one rollout move the velocity by 40% of its size."
    assert found.severity == "problem"
    assert not trust_region(record(velocity_shift=[0.05] * 6))
    assert not trust_region(record(velocity_shift=[0.05, 0.05, 0.4, 0.05, 0.05, 0.05]))  # one large step


def test_a_gradient_far_above_its_median_is_told():
    norms = np.exp(0.3 * noise(0, 20))
    assert not trust_region(record(grad_norm=norms))
    norms[17] = 30
    found = trust_region(record(grad_norm=norms))
    assert (found.severity, found.since) == ("warning", 17)
    assert "30 in iteration 17" in found.evidence


def test_a_trained_reward_that_falls_from_its_best_is_told():
    broken = np.concatenate([0.2 * noise(0, 12) + 1, 0.2 * noise(1, 24) - 3])
    found = trust_region(record(reward__a=broken))
    assert "went the wrong way, from 1" in found.evidence
    assert found.since <= 12
    assert trust_region(record({"a": -1.0}, reward__a=-broken))
    assert not trust_region(record({"a": -1.0}, reward__a=broken))
    assert not trust_region(record(reward__a=rising(60, 0)))


def test_a_long_run_without_any_gain_is_stalled():
    spread = {"reward_std__a": [1.0] * 200}
    found = stalled(record(reward__a=noise(0, 200), **spread))
    assert found.severity == "warning"
    assert "Nothing was gained in 200 iterations" in found.evidence
    assert not stalled(record(reward__a=rising(3, 0, 200), **spread))
    assert not stalled(record(reward__a=rising(-3, 0, 200), **spread))  # that is worse than stalled
    assert not stalled(record(reward__a=0.1 * noise(0, 60), reward_std__a=[1.0] * 60))  # too early
    unsteady = [9.0 * (-1) ** i for i in range(198)]  # no gain, and one could hide in it
    assert not stalled(record(reward__a=unsteady, **spread))


@pytest.mark.parametrize(
    ("norms", "severity", "since"),
    [
        ([1, 1.1, 1.19], None, None),
        ([1, 1.5, 1.1], None, None),  # over again
        ([1, 1.3, 1.1, 1.25, 1.3], "warning", 3),
        ([1, 1.3, 1.5], "problem", 1),
        ([1.3], "warning", 0),
    ],
)
def test_a_velocity_that_became_longer_than_the_base_models_is_inflated(norms, severity, since):
    found = norm_inflation(record(velocity_norm=norms))
    assert (found and found.severity, found and found.since) == (severity, since)
    if found:
        assert f"{norms[-1]:.2f} times as long" in found.evidence


def test_a_velocity_far_from_the_base_models_left_the_trust_region():
    assert not trust_region(record(velocity_change=[0, 0.1, 0.6, 0.3]))
    found = trust_region(record(velocity_change=[0, 0.7, 0.3, 0.6, 1.2]))
    assert (found.severity, found.since) == ("problem", 3)
    assert "by 120% of its size" in found.evidence


def test_one_of_two_rewards_that_rises_is_no_stall():
    both = {"reward__a": noise(0, 200), "reward_std__a": [1.0] * 200, "reward_std__b": [1.0] * 200}
    weights = {"a": 1.0, "b": 1.0}
    assert stalled(record(weights, reward__b=noise(1, 200), **both))
    assert not stalled(record(weights, reward__b=rising(3, 1, 200), **both))


@pytest.mark.parametrize("missing", NAMES)
def test_a_metric_that_the_run_does_not_have_is_no_error(missing):
    names = NAMES
    there = {name: noise(n, 200) for n, name in enumerate(names) if name != missing}
    for check in CHECKS.values():
        check(record(**there))


@pytest.mark.parametrize("n", range(10))
def test_a_run_of_few_iterations_or_none_is_no_error(n):
    names = NAMES
    for values in ([None] * n, [0.0] * n, [math.nan] * n, [1.0] * n):
        for check in CHECKS.values():
            check(record(**dict.fromkeys(names, values)))
