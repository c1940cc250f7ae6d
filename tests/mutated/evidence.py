"""Mistakes in what is compared with the method, and in how it is compared."""

from .target import Target

TARGETS = [
    Target(
        "trainer/stages/stochastic.py",
        ("test_rivals.py",),
        {
            "the beginning's noise is infinite": ("torch.where(sigma == 1, -step_size, 1 - sigma)", "1 - sigma"),
            "noise without the step's length": ("level * (-step_size).sqrt()", "level * -step_size"),
            "drift that keeps no marginals": ("level**2 / 2 * score", "level**2 * score"),
            "no pull back to the noise": ("wide(pull, x) * x + ", ""),
            "the solver draws no noise": ("wide(std, x) * noise", "0 * noise"),
        },
    ),
    Target(
        "trainer/objectives/sde.py",
        ("test_rivals.py",),
        {
            "the last step is noisy": ("lambda j, steps: j < steps - 1", "lambda j, steps: True"),
            "the last step is trained": ("choose_steps(self.total - 1,", "choose_steps(self.total,"),
            "every step is noisy outside of the window": (
                "lambda j, steps: j in kept",
                "lambda j, steps: j < steps - 1",
            ),
            "the sum over elements": ("-(x - mean).square().mean(1)", "-(x - mean).square().sum(1)"),
        },
    ),
    Target(
        "trainer/objectives/rival.py",
        ("test_rivals.py",),
        {
            "advantages without bounds": (".clamp(-MOST, MOST)", ""),
            "advantages as the quasi-norm leaves them": ("advantages * advantages.shape[1] ** 0.5", "advantages"),
            "each update has all candidates": ("pairs.anchor % updates == update", "pairs.anchor >= 0"),
        },
    ),
    Target(
        "trainer/objectives/nft.py",
        ("test_rivals.py",),
        {
            "bad pictures pull too": ("(r * error(better) + (1 - r) * error(worse))", "(error(better) + error(worse))"),
            "no noise is added again": ("(1 - s) * x_0 + s * eps", "x_0"),
        },
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_distances.py",),
        {
            "the end by the step's own leap": (
                "kept.x_0.expand_as(kept.x), -kept.sigma",
                "kept.x_0.expand_as(kept.x), kept.step_size",
            ),
            "clean pictures of the next state": (
                "leap(kept.x, kept.v, -kept.sigma)",
                "leap(kept.x_next, kept.v, -kept.sigma)",
            ),
        },
    ),
    Target(
        "trainer/stages/guards.py",
        ("test_guards.py",),
        {
            "shorter velocities are held back too": (".sub(1).clamp_min(0)", ".sub(1)"),
            "not relative to the reference": (" / v_reference.square().mean(1)", ""),
        },
    ),
    Target(
        "trainer/stages/reliability.py",
        ("test_reliability.py",),
        {
            "the noise of one scoring": ("known.var(0).mean() / n", "known.var(0).mean()"),
            "groups' levels count as signal": ("known.mean(0).var(-1).mean()", "known.mean(0).var()"),
            "shifted the same way each time": ("[(times - 1) % 4]", "[0]"),
        },
    ),
    Target(
        "trainer/rewards/scene.py",
        ("test_scene_reward.py",),
        {
            "specks count": ("if spot.share > SPECK", "if spot.share > 0"),
            "heaps count": ("max(spot.share for spot in things) > LARGEST", "False"),
            "one right colour is enough": ("all(nearest(spot.hue)", "any(nearest(spot.hue)"),
            "one right place is enough": ("all(lies(spot.middle", "any(lies(spot.middle"),
            "a thing in the middle is on every side": ("OFF_CENTRE * abs(to - 0.5)", "0"),
            "regions stop growing after a step": ("        number = spread\n", "        return spread.long()\n"),
        },
    ),
    Target(
        "trainer/models/lora/strength.py",
        ("test_strengths.py",),
        {"the strength stays": ("            layer.scaling[adapter] = scale\n", "            pass\n")},
    ),
    Target(
        "trainer/training/strengths.py",
        ("test_strengths.py",),
        {
            "the trained reward decides": ("if not held_out:", "if True:"),
            "rewards of larger numbers count more": ("/ unit(found, name)", "/ 1"),
        },
    ),
    Target(
        "trainer/experiments/summary.py",
        ("test_experiments.py",),
        {
            "the first test of a run": (
                "max(row, last.get(row.run, row), key=lambda row: row.mark)",
                "last.get(row.run, row)",
            ),
            "the worst rate": ("return max(rates,", "return min(rates,"),
            "the deviation for the error": (
                "statistics.stdev(values) / math.sqrt(len(values))",
                "statistics.stdev(values)",
            ),
        },
    ),
    Target(
        "trainer/experiments/bench.py",
        ("test_experiments.py",),
        {
            "tested by the disturbed reward": (
                "            rewards = {\n",
                "            rewards = self.rewards = {\n",
            )
        },
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_hold.py",),
        {
            "the held step is trained": ("torch.where(held, ", "torch.where(~held, "),
            "what is held counts by the pairs alone": ("self.grpo.hold * steps * away", "self.grpo.hold * away"),
            "what trains loses weight to what is held": ("steps / (steps - 1) * loss", "loss"),
            "the held step is never the last": ("[int(torch.randint(len(others)", "[int(torch.randint(len(others) - 1"),
            "early and late are one": ("return len(kept) - 1 if self.early else 0", "return len(kept) - 1"),
            "the reference is not asked for": ("config.grpo.kl_weight > 0 or self.holds", "config.grpo.kl_weight > 0"),
        },
    ),
    Target(
        "trainer/stages/anchors.py",
        ("test_hold.py",),
        {"both parts are at one step": ("second.step + first.step.max() + 1", "second.step")},
    ),
    Target(
        "trainer/planning/advice.py",
        ("test_hold.py",),
        {"held pairs cost nothing": ("config.updated_steps", "config.trained_steps")},
    ),
    Target(
        "trainer/experiments/fingerprint.py",
        ("test_experiments.py",),
        {
            "the rewards make no difference": ("plain(config.rewards), further", "further"),
            "nor what else makes the run": ("plain(config.rewards), further", "plain(config.rewards)"),
            "the seed is part of it": ('"run": ("folder", "seed")', '"run": ("folder",)'),
            "defaults are part of it": ("if name not in leave and value != known[name]", "if name not in leave"),
        },
    ),
    Target(
        "trainer/experiments/trials.py",
        ("test_experiments.py",),
        {
            "rows of other settings count": (" if settings.get((row.task, row.arm)) == row.settings]", "]"),
            "nothing is taken from other tables": ("                    if not found:", "                    if True:"),
            "of another seed": (
                "(row.task, row.rate, row.seed, row.settings) == (task.name, rate, seed, settings)",
                "(row.task, row.rate, row.settings) == (task.name, rate, settings)",
            ),
            "all rates at all seeds": ("if seed == first:", "if True:"),
        },
    ),
    Target(
        "trainer/experiments/sooner.py",
        ("test_experiments.py",),
        {
            "when the test after it was": ("share = (target - low) / (high - low)", "share = 1"),
            "the best seed": ("statistics.median(self.seconds)", "min(self.seconds)"),
            "what raised nothing is reached": ("if other.trained.value <= 0:", "if False:"),
        },
    ),
    Target(
        "trainer/training/base_noises.py",
        ("test_base_noises.py",),
        {
            "of its own size": ("norm(v - v_base) / norm(v_base)", "norm(v - v_base) / norm(v)"),
            "the other way round": ("norm(v) / norm(v_base)}", "norm(v_base) / norm(v)}"),
            "the base model itself": (
                "    with setup.policy.reference():\n        v_base",
                "    if True:\n        v_base",
            ),
        },
    ),
    Target(
        "trainer/stages/update.py",
        ("test_update.py",),
        {
            "moments that are not made up for": ('known["exp_avg"] / (1 - beta1**n)', 'known["exp_avg"]'),
            "the last parameter alone": ("torch.stack(squares).sum()", "squares[-1]"),
        },
    ),
    Target(
        "trainer/stages/update.py",
        ("test_hold.py",),
        {"the reference is asked at all pairs": ("if referred is None or referred[start + i]]", "]")},
    ),
    Target(
        "trainer/training/probe.py",
        ("test_probe.py",),
        {
            "groups agree with themselves": ("(total.square().sum().item() - groups)", "total.square().sum().item()"),
            "long gradients count more": ("return whole / whole.norm()", "return whole"),
            "as many groups as an iteration has": (
                "range(min(most, len(candidates.prompts)))",
                "range(len(candidates.prompts))",
            ),
            "where they agree least": ("max(known, key", "min(known, key"),
            "what is held is asked for": ("s, hold=0.0))", "s, hold=setup.config.grpo.hold))"),
            "deaf until it is done": ("        between()\n", ""),
            "gradients stay": (
                "    finally:\n        for p in setup.lora.values():\n            p.grad = None",
                "    finally:\n        pass",
            ),
            "each adds to the last one": (
                "        for p in setup.lora.values():\n            p.grad = None\n        gradient(",
                "        gradient(",
            ),
        },
    ),
    Target(
        "trainer/training/loop.py",
        ("test_probe.py",),
        {
            "a resumed run probes again": ("or state.iteration > 0 or change_at(state.changes, 0)", ""),
            "found and forgotten": (
                "state.changes = with_change(state.changes, Change(0",
                "with_change(state.changes, Change(0",
            ),
        },
    ),
    Target(
        "trainer/benchmarks/iteration.py",
        ("test_benchmarks.py",),
        {
            "a backward pass is free": ("trained * 2 +", "trained +"),
            "the reference at all steps": ("trained // at_once", "trained"),
            "the first turn counts": ("if turn >= 0:", "if True:"),
        },
    ),
    Target(
        "trainer/history/strengths.py",
        ("test_history.py",),
        {
            "of no iteration": ('"iteration": iteration}', '"iteration": None}'),
            "an empty table is one": ("    if not rows:", "    if rows is None:"),
            "without end": ("[:MOST]", ""),
        },
    ),
]
