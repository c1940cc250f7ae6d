"""Mistakes in the checks of a run's curves."""

from .target import Target

TARGETS = [
    Target(
        "trainer/diagnosis/record.py",
        (
            "test_diagnosis.py",
            "test_watch.py",
        ),
        {
            "the noise of differences for that of values": ("kept.mean() / KEPT_MEAN / 2)", "kept.mean() / KEPT_MEAN)"),
            "the left out differences not made up for": ("kept.mean() / KEPT_MEAN / 2)", "kept.mean() / 2)"),
            "a break counts as noise": ("KEPT, KEPT_MEAN = 0.8, 0.4401", "KEPT, KEPT_MEAN = 1.0, 1.0"),
            "errors of one window alone": ("math.sqrt(1 / len(before) + 1 / len(after))", "math.sqrt(1 / len(before))"),
            "the best lies in the last window": ("len(self) - len(self.last())", "len(self)"),
            "the best is the worst": ("means.argmax()", "means.argmin()"),
            "the sign is ignored": ("math.copysign(1 / length, sign)", "1 / length"),
            "passes begin anywhere": ("whole = counts == period", "whole = counts > 0"),
            "a pass is a prompt too short": (
                "-(-self.prompts // self.prompts_per_iteration)",
                "(self.prompts // self.prompts_per_iteration)",
            ),
            "missing values are zeros": ("if v is not None and math.isfinite(v)]", "if v is not None]"),
            "a run ends where its last pass begins": (
                "int(self.iterations[-1]) + self.period",
                "int(self.iterations[-1])",
            ),
            "the first strength": ("strengths[-1] if strengths", "strengths[0] if strengths"),
        },
    ),
    Target(
        "trainer/diagnosis/rewards.py",
        (
            "test_diagnosis.py",
            "test_watch.py",
        ),
        {
            "a fall alone is hacking": ("and rise >= RISEN", ""),
            "a rise alone is hacking": ("if fall <= -FALLEN and", "if"),
            "weights' signs ignored": (
                "rise = math.copysign(1, weight) * standard_errors(then",
                "rise = standard_errors(then",
            ),
            "easily alarmed by hacking": ("FALLEN = 4.0", "FALLEN = 0.5"),
            "shares of iterations": ("share = skipped.mean / record.prompts_per_iteration", "share = skipped.mean"),
            "a rise is a fault all the same": ("            if learnt:", "            if False:"),
            "a fall is a rise": (
                "math.copysign(1, weight) * standard_errors(first, last, curve.noise) >= RISEN",
                "abs(standard_errors(first, last, curve.noise)) >= RISEN",
            ),
            "a share for its lower bound": ("if lowest_share(share, groups) > FLAT:", "if share >= FLAT:"),
            "groups for their means": (
                "curve.variance * curve.period * record.prompts_per_iteration)",
                "curve.variance * curve.period)",
            ),
            "scores for their groups' means": ("(within.values**2).mean() / (g - 1)", "(within.values**2).mean()"),
            "any strength will do": ("if record.strength > NEAR:", "if False:"),
            "no doubt about the variance": ("highest = ratio / lowest_variance", "highest = ratio * lowest_variance"),
            "a fall is a stall": (" or rise < -SURE * error:", ":"),
            "noise is a stall": ("rise + LIKELY * error > useful", "rise > useful"),
            "judged at once": ("JUDGED = 64", "JUDGED = 1"),
        },
    ),
    Target(
        "trainer/diagnosis/policy.py",
        (
            "test_diagnosis.py",
            "test_watch.py",
        ),
        {
            "one narrow window is a collapse": ("if fall > -SURE or left > NARROWER:", "if left > NARROWER:"),
            "a little narrower is a collapse": ("NARROWER = 0.5", "NARROWER = 0.95"),
            "never alike": ("if apart < ALIKE:", "if False:"),
            "alike by the square": ("apart = math.sqrt(last.mean)", "apart = last.mean"),
            "another strength is a collapse": ("curve.iterations >= record.settled", "curve.iterations >= 0"),
            "long clipped": ('record.curve("clip_fraction").last()', 'record.curve("clip_fraction")'),
            "clipping is normal": ("CLIPPED = 0.5", "CLIPPED = 0.9"),
            "the mean for the median": (
                "median, worst = float(np.median(curve.values))",
                "median, worst = float(curve.values.min())",
            ),
            "spikes are normal": ("SPIKE = 10.0", "SPIKE = 100.0"),
            "velocities may differ": ("OTHER = 0.02", "OTHER = 0.5"),
            "bfloat16 is a fault": ("OTHER = 0.02", "OTHER = 0.01"),
            "policies may run away": ("MOVED = 0.2", "MOVED = 0.5"),
            "one large step is too far": (
                "np.median(recent.values) <= MOVED",
                "recent.values.max() <= MOVED",
            ),
            "far from the base model is near": ("AWAY = 0.5", "AWAY = 5.0"),
            "near the base model is far": ("AWAY = 0.5", "AWAY = 0.2"),
            "once away, always away": ("return int(within[-1]) + 1", "return int(within[0]) + 1"),
            "long is not too long": ("LONGER, BURST = 1.2", "LONGER, BURST = 1.4"),
            "hardly longer is too long": ("LONGER, BURST = 1.2", "LONGER, BURST = 1.1"),
            "a burst is a warning": ('"problem" if curve.values[-1] > BURST else "warning"', '"warning"'),
            "a rise is a fall": ("if rise <= -SURE:", "if abs(rise) >= SURE:"),
        },
    ),
    Target(
        "trainer/diagnosis/watch.py",
        (
            "test_diagnosis.py",
            "test_watch.py",
        ),
        {
            "what was before is forgotten": ("list(earlier.curve(name)) for", "[] for"),
            "every finding ends the run": (
                "diagnose(self.curves, self.settings, self.names)",
                "diagnose(self.curves, self.settings)",
            ),
        },
    ),
]
