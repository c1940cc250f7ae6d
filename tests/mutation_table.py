"""The mistakes that the tests must notice: see mutations.py.

Each target is a file, the test files (under tests/trainer) that should notice, and its mutations: what the mistake is,
the snippet to replace, which must occur exactly once in the file, and what to put there.
"""

from typing import NamedTuple


class Target(NamedTuple):
    file: str
    tests: tuple[str, ...]
    mutations: dict[str, tuple[str, str]]  # name -> old snippet, new snippet


TARGETS = [
    Target(
        "trainer/noise.py",
        ("test_noise.py",),
        {
            "base without square root": ("math.sqrt(1 - strength**2) * base", "(1 - strength**2) * base"),
            "base not shrunk": ("math.sqrt(1 - strength**2) * base", "base"),
            "perturbation by the variance": ("+ strength * delta", "+ strength**2 * delta"),
            "one perturbation for all": (
                "torch.randn((group_size, *base.shape), generator=generator, device=base.device, dtype=base.dtype)",
                "torch.randn(base.shape, generator=generator).expand(group_size, *base.shape)",
            ),
            "base and perturbations of one stream": ("manual_seed(derive_seed(seed, 1))", "manual_seed(seed)"),
            "seeds ignore the iteration": ("SeedSequence(path)", "SeedSequence(path[:2])"),
            "seeds ignore the order": ("SeedSequence(path)", "SeedSequence(sorted(path))"),
            "strength 0 allowed": ("0 < strength <= 1", "0 <= strength <= 1"),
        },
    ),
    Target(
        "trainer/schedule.py",
        ("test_schedule.py",),
        {
            "shift without the complement": ("(shift * s + (1 - s))", "(shift * s + 1)"),
            "shift inverted": ("s = shift * s / (shift * s + (1 - s))", "s = s / (s + shift * (1 - s))"),
            "mu through the origin": ("slope * (tokens - BASE_TOKENS)", "slope * tokens"),
            "one step too fine": ("linspace(1, 1 / steps, steps", "linspace(1, 1 / (steps + 1), steps"),
            "grid in float32": ("dtype=torch.float64", "dtype=torch.float32"),
        },
    ),
    Target(
        "trainer/solvers.py",
        ("test_solvers.py",),
        {
            "euler steps back": ("x_next = x + (s_next - s) * v", "x_next = x + (s - s_next) * v"),
            "euler yields the velocity of the end": (
                "yield x, v, x_next\n        x = x_next\n\n\ndef heun",
                "yield x, velocity(x_next, s_next), x_next\n        x = x_next\n\n\ndef heun",
            ),
            "heun without the half": ("h / 2 * (v +", "h * (v +"),
            "heun corrects at the old sigma": ("velocity(x_next, s_next))", "velocity(x_next, s))"),
            "heun evaluates at sigma 0": ("if s_next > 0:", "if s_next >= 0:"),
            "AB2 keeps a stale velocity": (
                "x, v_prev, h_prev = x_next, v, h",
                "x, v_prev, h_prev = x_next, v if v_prev is None else v_prev, h",
            ),
            "AB2 for even steps only": ("v + h / (2 * h_prev) * (v - v_prev)", "v + 0.5 * (v - v_prev)"),
            "AB2 extrapolates backwards": ("* (v - v_prev)", "* (v_prev - v)"),
            "DPM++ of first order": ("estimate = x_0 + h / (2 * h_prev) * (x_0 - x_0_prev)", "estimate = x_0"),
            "DPM++ with the step ratio inverted": ("h / (2 * h_prev) * (x_0", "h_prev / (2 * h) * (x_0"),
            "DPM++ keeps the next lambda": (
                "lambda_prev = x_next, x_0, lam\n",
                "lambda_prev = x_next, x_0, lambda_next\n",
            ),
            "DPM++ predicts the noise": ("x_0 = x - s * v", "x_0 = x + (1 - s) * v"),
            "DPM++ forgets alpha": ("math.log((1 - s) / s)", "math.log(1 / s)"),
            "DPM++ extrapolates to lambda infinite": ("or math.isinf(h) or", "or"),
        },
    ),
    Target(
        "trainer/rollout.py",
        ("test_rollout.py",),
        {
            "keeps the state after the step": ("= x_j, v_j, end", "= end, v_j, end"),
            "sigma off by one": ("[grid[j] for j in steps]", "[grid[j + 1] for j in steps]"),
            "step size of the wrong sign": ("grid[j + 1] - grid[j] for", "grid[j] - grid[j + 1] for"),
            "step size of the float32 grid": (
                "noise.new_tensor([grid[j + 1] - grid[j] for j in steps])",
                "noise.new_tensor(grid).diff()[steps]",
            ),
            "kept steps unsorted": ("steps = sorted(keep)", "steps = list(keep)"),
            "one condition for all": ("new_full((len(x),), s), rows)", "new_full((len(x),), s), rows * 0)"),
            "filled up with zeros": (
                "rows[-1:].expand(missing, *rows.shape[1:])",
                "rows.new_zeros(missing, *rows.shape[1:])",
            ),
            "last batch not filled up": ("*(fill(t[start : start + size], size) for", "*(t[start : start + size] for"),
            "fillers returned": ("[: len(x) - start]", "[:size]"),
            "builds a graph": ("@torch.no_grad()\ndef rollout(", "def rollout("),
        },
    ),
    Target(
        "trainer/decode.py",
        ("test_rollout.py",),
        {
            "all at once": ("x_0.split(micro_batch)", "x_0.split(len(x_0))"),
            "builds a graph": ("@torch.no_grad()\n", ""),
        },
    ),
    Target(
        "trainer/advantages.py",
        ("test_advantages.py",),
        {
            "standard deviation of the sample": (
                "deviation.square().mean(-1, keepdim=True).sqrt()",
                "r.std(-1, keepdim=True)",
            ),
            "variance for standard deviation": (".mean(-1, keepdim=True).sqrt()", ".mean(-1, keepdim=True)"),
            "not centred": ("advantages = deviation /", "advantages = r /"),
            "mean over all groups": ("deviation = r - r.mean(-1, keepdim=True)", "deviation = r - r.mean()"),
            "in float32": ("r = rewards.double()", "r = rewards.float()"),
            "uninformative group not zeroed": (
                "torch.where(informative[:, None], advantages, 0).float()",
                "advantages.float()",
            ),
            "rounding taken for information": (" > FLAT * r.abs().amax(-1)", " > 0"),
            "quasi-norm without the root": (".sum(-1, keepdim=True).pow(1 / p)", ".sum(-1, keepdim=True)"),
            "quasi-norm by the mean": (".pow(p).sum(-1", ".pow(p).mean(-1"),
            "quasi-norm of zeros": ("torch.where(norm > 0, norm, 1)", "norm"),
            "flatness without the group size": ("(a.shape[-1] * a.square().sum(-1))", "a.square().sum(-1)"),
        },
    ),
    Target(
        "trainer/anchors.py",
        ("test_anchors.py",),
        {
            "with replacement": (
                "torch.rand(prompts, group_size, generator=generator).argsort(1)",
                "torch.randint(group_size, (prompts, group_size), generator=generator)",
            ),
            "same anchors for every prompt": (
                "torch.rand(prompts, group_size, generator=generator).argsort(1)",
                "torch.rand(1, group_size, generator=generator).argsort(1).expand(prompts, -1)",
            ),
            "the first candidates always": (
                "torch.rand(prompts, group_size, generator=generator).argsort(1)",
                "torch.arange(group_size).expand(prompts, -1)",
            ),
            "prompts and anchors out of step": ("(prompts).repeat_interleave(anchors)", "(prompts).repeat(anchors)"),
            "pairs not ordered by step": (
                "(steps).repeat_interleave(prompts * anchors)",
                "(steps).repeat(prompts * anchors)",
            ),
            "keeps the wrong prompts": ("mask = prompts[self.prompt]", "mask = ~prompts[self.prompt]"),
            "the first steps always": (
                "torch.randperm(steps, generator=generator)[:count]",
                "torch.arange(steps)[:count]",
            ),
            "steps unsorted": ("[:count].sort().values", "[:count]"),
        },
    ),
    Target(
        "trainer/surrogate.py",
        ("test_surrogate.py",),
        {
            "leap of the wrong sign": ("return x + step_size", "return x - step_size"),
            "mean distance for sum": (".square().flatten(2).sum(-1)", ".square().flatten(2).mean(-1)"),
            "distance not squared": (".square().flatten(2).sum(-1)", ".flatten(2).norm(dim=-1)"),
            "farthest is likeliest": ("log_softmax(-squared_distances", "log_softmax(squared_distances"),
            "softmax over the pairs": ("/ tau[:, None], dim=-1)", "/ tau[:, None], dim=0)"),
            "one temperature for all groups": ("/ tau[:, None]", "/ tau.mean()"),
            "no clip": ("-torch.minimum(plain, clipped)", "-plain"),
            "clip alone": ("-torch.minimum(plain, clipped)", "-clipped"),
            "larger term for the smaller": ("torch.minimum(plain, clipped)", "torch.maximum(plain, clipped)"),
            "mean over candidates": ("torch.minimum(plain, clipped).sum(-1)", "torch.minimum(plain, clipped).mean(-1)"),
            "ratio to first order": ("rho = log_ratio.exp()", "rho = 1 + log_ratio"),
            "ratio inverted": ("log_ratio = log_new - log_old", "log_ratio = log_old - log_new"),
            "clip from below only": ("rho.clamp(1 - clip, 1 + clip)", "rho.clamp(min=1 - clip)"),
            "clip fraction counts what was not taken": ("(clipped < plain)", "(clipped != plain)"),
            "KL reversed": ("(log_p.exp() * (log_p - log_q))", "(log_q.exp() * (log_q - log_p))"),
            "KL to the old policy reversed": ("(log_old.exp() * -log_ratio)", "(log_new.exp() * log_ratio)"),
            "pairwise distance over G": ("2 / (group_size - 1)", "2 / group_size"),
            "elements of the whole group": ("candidates[0, 0].numel()", "candidates[0].numel()"),
            "scale-free temperature of all groups": (
                "temperature * mean_pairwise_distance(candidates)",
                "temperature * mean_pairwise_distance(candidates).mean().expand(len(candidates))",
            ),
        },
    ),
    Target(
        "trainer/update.py",
        ("test_gradient.py", "test_update.py"),
        {
            "old policy takes the solver's step": (
                "log_policy(candidates, leap(x, v_old, step_size), tau_k)",
                "log_policy(candidates, trajectories.x_next[k, row], tau_k)",
            ),
            "mean of each micro-batch": ("(loss.sum() / normaliser)", "loss.mean()"),
            "normalised by the trained pairs": ("(loss.sum() / normaliser)", "(loss.sum() / len(pairs))"),
            "loss reported per trained pair": ("loss * len(pairs) / normaliser,", "loss,"),
            "advantages of the first prompt": ("advantages[prompt], clip", "advantages[prompt * 0], clip"),
            "candidates of another step": ("candidates_of[k, prompt]", "candidates_of[k - 1, prompt]"),
            "rows by candidate": ("row = prompt * group_size + anchor", "row = anchor * prompts + prompt"),
            "temperature of the first step": ("tau[k, prompt]", "tau[0, prompt]"),
            "condition by row": (
                "velocity(x, sigma, prompt), step_size)",
                "velocity(x, sigma, row % prompts), step_size)",
            ),
            "KL without its weight": ("kl_weight * kl", "kl"),
            "KL to the reference reversed": (
                "kl_divergence(log_new, log_reference)",
                "kl_divergence(log_reference, log_new)",
            ),
            "reference always asked": ("if reference is not None and kl_weight:", "if reference is not None:"),
            "ratio error of the last micro-batch": (
                "torch.maximum(ratio_error, result.log_ratio.expm1().abs().max())",
                "result.log_ratio.expm1().abs().max()",
            ),
            "non-finite gradient applied": ("finite = math.isfinite(norm)", "finite = not math.isnan(norm)"),
            "no gradient clipping": ("clip_grad_norm_(parameters, max_norm)", "clip_grad_norm_(parameters, math.inf)"),
            "gradients kept": ("    optimizer.zero_grad(set_to_none=True)\n", ""),
            "learning rate not set": ('group["lr"] = lr', 'group["lr"] = group["lr"]'),
            "warm-up off by one": ("(update + 1) / warmup", "update / warmup"),
            "EMA swapped": ("lerp_(p, 1 - decay)", "lerp_(p, decay)"),
            "EMA decays slowly from the start": (
                "decay = min(self.decay, (1 + self.updates) / (10 + self.updates))",
                "decay = self.decay",
            ),
            "EMA counts no updates": ("        self.updates += 1\n", ""),
            "EMA shares the weights' memory": ("p.detach().clone()", "p.detach()"),
        },
    ),
    Target(
        "trainer/rewards/combine.py",
        ("test_combine.py",),
        {
            "held-out reward enters the sum": (
                "weights[name] * s.double() for name, s in trained.items()",
                "weights.get(name, 1.0) * s.double() for name, s in {**scores, **trained}.items()",
            ),
            "held-out NaN silences": ("for s in trained.values()", "for s in scores.values()"),
            "weights ignored": ("weights[name] * s.double()", "s.double()"),
            "weight's sign ignored": ("weights[name] * s.double()", "abs(weights[name]) * s.double()"),
            "raw is normalised too": ('if normalisation == "advantage":', "if normalisation in NORMALISATIONS:"),
            "NaN in one of two rewards passes": (
                "informative = informative & finite",
                "informative = informative.clone()",
            ),
            "what cancels becomes noise": ("torch.where(cancelled[:, None], 0, total)", "total.clone()"),
        },
    ),
    Target(
        "trainer/rewards/pixels.py",
        ("test_pixel_rewards.py",),
        {
            "spread of the sample": ("std(-1, correction=0)", "std(-1, correction=1)"),
            "yellow-blue without the half": ("(red + green) / 2 - blue", "(red + green) - blue"),
            "offset at full weight": ("0.3 * offset", "offset"),
            "spreads added, not in quadrature": ("correction=0).norm(dim=1)", "correction=0).sum(dim=1)"),
            "large files are better": ("/ -500", "/ 500"),
            "kibibytes": ("/ 1000 for p", "/ 1024 for p"),
            "another quality": ("quality = 95", "quality = 94"),
            "pixels cut off, not rounded": (".round().to(torch.uint8)", ".to(torch.uint8)"),
            "width for height": ("permute(0, 2, 3, 1)", "permute(0, 3, 2, 1)"),
        },
    ),
    Target(
        "trainer/rewards/clip.py",
        ("test_clip_reward.py",),
        {
            "long edge rounded": ("self.size * width // shortest)", "round(self.size * width / shortest))"),
            "squashed to a square": (
                "(self.size * height // shortest, self.size * width // shortest)",
                "(self.size, self.size)",
            ),
            "without antialias": ("antialias=True", "antialias=False"),
            "cropped at the corner": (
                "top, left = (size[0] - self.size) // 2,",
                "top, left = 0 * (size[0] - self.size) // 2,",
            ),
            "not normalised": ("return (images - self.mean) / self.std", "return images"),
            "text vector of any length": (
                "F.normalize(_tensor(self.model.get_text_features(**tokens)), dim=-1)[0]",
                "_tensor(self.model.get_text_features(**tokens))[0]",
            ),
            "every prompt encoded again": ("if prompt not in self.texts:", "if prompt:"),
            "logit scale without exp": ("self.model.logit_scale.exp()", "self.model.logit_scale"),
            "damaged weights uncaught": ("RuntimeError, SafetensorError)", "RuntimeError)"),
        },
    ),
    Target(
        "trainer/models/geometry.py",
        ("test_geometry.py",),
        {
            "channels last in a token": ("permute(0, 2, 4, 1, 3, 5)", "permute(0, 2, 4, 3, 5, 1)"),
            "unpacked columns for rows": ("permute(0, 3, 1, 4, 2, 5)", "permute(0, 3, 1, 5, 2, 4)"),
            "column before row": ("(rows), rows, columns]", "(rows), columns, rows]"),
            "latents lie on their side": ("2 * self.rows, 2 * self.columns)", "2 * self.columns, 2 * self.rows)"),
            "any multiple of 8 allowed": ("pixels % PIXELS_PER_TOKEN:", "pixels % 8:"),
            "suggests 0": ("max(1, pixels // PIXELS_PER_TOKEN)", "(pixels // PIXELS_PER_TOKEN)"),
        },
    ),
    Target(
        "trainer/models/source.py",
        ("test_source.py",),
        {"damaged weights uncaught": ("RuntimeError, SafetensorError)", "RuntimeError)")},
    ),
    Target(
        "trainer/prompts.py",
        ("test_prompts.py",),
        {
            "every epoch in the same order": ("default_rng([seed, epoch])", "default_rng([seed])"),
            "every seed in the same order": ("default_rng([seed, epoch])", "default_rng([epoch])"),
            "iterations overlap": ("first = iteration * per_iteration", "first = iteration"),
            "with replacement": (".permutation(count)", ".integers(count, size=count)"),
            "not shuffled": ("np.random.default_rng([seed, epoch]).permutation(count)", "np.arange(count)"),
        },
    ),
    Target(
        "trainer/loop.py",
        ("test_loop.py",),
        {
            "held-out reward is trained on": (
                "combine(scores, config.weights, grpo",
                "combine(scores, dict.fromkeys(scores, 1.0), grpo",
            ),
            "uninformative groups are trained on": ("pairs.only(group.combined.informative.cpu())", "pairs"),
            "every iteration has the same noise": (
                "derive_seed(NOISE, config.run.seed, iteration, slot)",
                "derive_seed(NOISE, config.run.seed, slot)",
            ),
            "every prompt has the same noise": (
                "derive_seed(NOISE, config.run.seed, iteration, slot)",
                "derive_seed(NOISE, config.run.seed, iteration)",
            ),
            "a good iteration does not reset the patience": (
                "state.skipped_in_row + 1 if skipped else 0",
                "state.skipped_in_row + bool(skipped)",
            ),
            "gradient not averaged over the steps": (
                "normaliser=prompts * grpo.anchors * grpo.trained_steps",
                "normaliser=prompts * grpo.anchors",
            ),
            "plain advantages without the quasi-norm": (
                "quasi_norm_reweight(combined.advantages, grpo.quasi_norm)",
                "combined.advantages",
            ),
            "the average is not updated": ("state.average.update(setup.lora)", "pass"),
            "saves at the wrong iterations": (
                "state.iteration % run.save_every == 0",
                "state.iteration % run.save_every == 1",
            ),
            "ends without saving": ("if saved != state.iteration:", "if False:"),
        },
    ),
    Target(
        "trainer/run.py",
        ("test_run.py",),
        {
            "optimiser not restored": ("restore_optimizer(state.optimizer, setup.lora, checkpoint.optimizer)", "pass"),
            "average not restored": ("set_weights(state.average.shadow, checkpoint.average)", "pass"),
            "warm-up starts again": ('state.updates = checkpoint.counters["updates"]', "state.updates = 0"),
            "ramp of the average starts again": (
                'state.average.updates = checkpoint.counters["average_updates"]',
                "state.average.updates = 0",
            ),
            "store not rewound": ("store.rewind(state.iteration)", "pass"),
            "weights exported instead of their average": (
                "state.average.shadow if config.optimizer.ema_decay else setup.lora",
                "setup.lora",
            ),
            "other settings accepted": ("    if changed:", "    if False:"),
        },
    ),
    Target(
        "trainer/checkpoint.py",
        ("test_checkpoint.py",),
        {
            "only one is kept": ("KEPT = 2", "KEPT = 1"),
            "the oldest is loaded": ("for path in reversed(checkpoints(folder)):", "for path in checkpoints(folder):"),
            "no second try": ("for path in reversed(checkpoints(folder)):", "for path in checkpoints(folder)[-1:]:"),
            "a damaged one is taken for whole": ("target.exists() and _is_whole(target)", "target.exists()"),
            "written in place": ('partial = folder / f"{target.name}.partial"', "partial = target"),
            "only damaged ones start anew in silence": ("    if errors:", "    if False:"),
        },
    ),
    Target(
        "trainer/metrics.py",
        ("test_metrics.py",),
        {
            "rewinds one too few": ("WHERE iteration >= ?", "WHERE iteration > ?"),
            "tiles in the order of prompts": (
                "slot, candidate = divmod(n, group_size)",
                "candidate, slot = divmod(n, len(event.prompts))",
            ),
            "rows and columns swapped": (".permute(0, 2, 3, 1)", ".permute(0, 3, 2, 1)"),
        },
    ),
    Target(
        "trainer/models/lora.py",
        ("test_lora.py",),
        {
            "alpha always 1": ("torch.tensor(float(alpha))", "torch.tensor(1.0)"),
            "bare names": ('tensors = {f"transformer.{name}": w.', 'tensors = {f"{name}": w.'),
            "last layer trained too": (
                "single_transformer_blocks\\.\\d+\\.(proj_mlp|proj_out)",
                "(.+\\.)?(proj_mlp|proj_out)",
            ),
            "LoRA in the model's precision": ("parameter.data = parameter.data.float()", "pass"),
            "seed ignored": ("torch.manual_seed(seed)", "torch.manual_seed(0)"),
        },
    ),
    Target(
        "trainer/models/flux.py",
        ("test_flux.py", "test_lora.py"),
        {
            "latents multiplied by the scale": ("/ config.scaling_factor", "* config.scaling_factor"),
            "no shift of the latents": ("+ (config.shift_factor or 0)", ""),
            "pictures not centred": ("/ 2 + 0.5", "/ 2"),
            "guidance forgotten": ("self.guidance) if guided", "1.0) if guided"),
            "reference keeps the LoRA": ("self.transformer.disable_adapters()", "pass"),
            "conditions in the wrong order": ("conditioning.pooled[rows]", "conditioning.pooled[rows.flip(0)]"),
        },
    ),
]
