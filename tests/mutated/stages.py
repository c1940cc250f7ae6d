"""Mistakes in the stages: noise to update."""

from .target import Target

TARGETS = [
    Target(
        "trainer/stages/noise.py",
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
        "trainer/stages/schedule.py",
        ("test_schedule.py",),
        {
            "shift without the complement": ("(shift * s + (1 - s))", "(shift * s + 1)"),
            "shift inverted": ("s = shift * s / (shift * s + (1 - s))", "s = s / (s + shift * (1 - s))"),
            "mu through the origin": ("slope * (tokens - BASE_TOKENS)", "slope * tokens"),
            "one step too fine": ("linspace(1, 1 / total, total", "linspace(1, 1 / (total + 1), total"),
            "grid in float32": ("dtype=torch.float64", "dtype=torch.float32"),
        },
    ),
    Target(
        "trainer/stages/schedule.py",
        ("test_image_to_image.py",),
        {
            "image-to-image has fewer steps": ("total = int(steps / denoise)", "total = steps"),
            "image-to-image starts at the top": ("[-steps:]", "[:steps]"),
            "denoise of 0": ("if not 0 < denoise <= 1", "if not 0 <= denoise <= 1"),
        },
    ),
    Target(
        "trainer/stages/noise.py",
        ("test_image_to_image.py",),
        {
            "picture and noise exchanged": (
                "else (1 - sigma) * latent + sigma * noise",
                "else sigma * latent + (1 - sigma) * noise",
            )
        },
    ),
    Target(
        "trainer/stages/inpainting.py",
        ("test_inpainting.py",),
        {
            "the kept region compared": ("mask.flatten().nonzero()", "(~mask).flatten().nonzero()"),
            "the known region is the model's": (
                "torch.where(self.mask, v, self.noise - self.z)",
                "v",
            ),
            "the known region moves the wrong way": ("v, self.noise - self.z)", "v, self.z - self.noise)"),
            "mask inverted": ("torch.where(self.mask, v, ", "torch.where(~self.mask, v, "),
            "the end not the picture itself": ("torch.where(self.mask, x_0, self.z)", "x_0"),
            "one latent for all prompts": ("rows = list(prompts) if", "rows = [0] * len(prompts) if"),
        },
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_inpainting.py",),
        {
            "velocities compared outside the mask": (
                "relative_error(inside(v), inside(v_old))",
                "relative_error(v, v_old)",
            ),
        },
    ),
    Target(
        "trainer/stages/rollout.py",
        ("test_inpainting.py",),
        {
            "the region forgotten by a part": ("masked=self.masked, **kept", "**kept"),
            "the region counted on the device": (
                "masked=unmasked.positions",
                "masked=unmasked.mask.flatten().nonzero().squeeze(1)",
            ),
            "known region not drawn around": ("return unmasked.velocity(v) if unmasked else v", "return v"),
        },
    ),
    Target(
        "trainer/stages/solvers.py",
        ("test_solvers.py",),
        {
            "heun as dear as two": ("lambda steps: 2 * steps - 1)", "lambda steps: 2 * steps)"),
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
        "trainer/stages/rollout.py",
        ("test_rollout.py",),
        {
            "keeps the state after the step": ("= x_j, v_j, end", "= end, v_j, end"),
            "sigma off by one": ("[grid[j] for j in steps]", "[grid[j + 1] for j in steps]"),
            "step size of the wrong sign": ("grid[j + 1] - grid[j] for", "grid[j] - grid[j + 1] for"),
            "step size of the float32 grid": (
                "begin.new_tensor([grid[j + 1] - grid[j] for j in steps])",
                "begin.new_tensor(grid).diff()[steps]",
            ),
            "kept steps unsorted": ("steps = sorted(kept)", "steps = list(kept)"),
            "one condition for all": ("new_full((len(x),), s), rows)", "new_full((len(x),), s), rows * 0)"),
            "filled up with zeros": (
                "rows[-1:].expand(missing, *rows.shape[1:])",
                "rows.new_zeros(missing, *rows.shape[1:])",
            ),
            "last batch not filled up": ("(fill(t, size) for t in part) if filled", "part if filled"),
            "filled up unasked": ("(fill(t, size) for t in part) if filled", "(fill(t, size) for t in part) if True"),
            "kept steps mixed up": ("for j in sorted(steps)]\n        kept", "for j in steps]\n        kept"),
            "fillers returned": ("[: len(x) - start]", "[:size]"),
            "builds a graph": ("@torch.no_grad()\ndef rollout(", "def rollout("),
        },
    ),
    Target(
        "trainer/stages/decode.py",
        ("test_rollout.py",),
        {
            "all at once": ("x_0.split(micro_batch)", "x_0.split(len(x_0))"),
            "builds a graph": ("@torch.no_grad()\n", ""),
        },
    ),
    Target(
        "trainer/stages/advantages.py",
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
        "trainer/stages/anchors.py",
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
            "strata that are all alike": ("if pairing == STRATIFIED else", "if False else"),
            "crossed pairs are stratified": ("if pairing == STRATIFIED else", "if True else"),
            "no turn comes again": ("turn % group_size", "turn.clamp(max=group_size - 1)"),
            "steps and prompts exchanged": ("anchor.transpose(0, 1).flatten()", "anchor.flatten()"),
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
        "trainer/stages/surrogate.py",
        ("test_surrogate.py",),
        {
            "a ratio without bounds": ("log_ratio.clamp(-STEEPEST, STEEPEST).exp()", "log_ratio.exp()"),
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
            "ratio to first order": ("log_ratio.clamp(-STEEPEST, STEEPEST).exp()", "1 + log_ratio"),
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
        "trainer/stages/update.py",
        ("test_lora_fused.py",),
        {"a step that nobody is told of": ("        torch.autograd.graph.increment_version(parameters)\n", "")},
    ),
    Target(
        "trainer/stages/update.py",
        ("test_gradient.py", "test_update.py"),
        {
            "mean of each micro-batch": (
                "(result.loss.sum() * (loss_scale / normaliser))",
                "(result.loss.mean() * loss_scale)",
            ),
            "normalised by the trained pairs": ("(loss_scale / normaliser)", "(loss_scale / len(pairs))"),
            "loss reported per trained pair": ("loss = loss * len(pairs) / normaliser", "pass"),
            "rows by candidate": (
                "row = part.prompt * group_size + part.anchor",
                "row = part.anchor * 2 + part.prompt",
            ),
            "condition by row": (
                "v = velocity(x, sigma, part.prompt)",
                "v = velocity(x, sigma, row % 2)",
            ),
            "ratio error of the last micro-batch": (
                "torch.maximum(ratio_error, result.log_ratio.expm1().abs().max())",
                "result.log_ratio.expm1().abs().max()",
            ),
            "non-finite gradient applied": ("finite = math.isfinite(norm)", "finite = not math.isnan(norm)"),
            "no gradient clipping": ("unit * min(1.0, limit / norm if norm else 1.0)", "unit"),
            "clipped to the latest norm": ("statistics.median(self.norms)", "self.norms[-1]"),
            "norms of the scaled loss": (", math.inf)) / loss_scale", ", math.inf))"),
            "the unit follows each gradient": ("if self.exponent is None and norm > 0:", "if norm > 0:"),
            "AdamW sees the gradient as it is": ("unit = 2.0 ** (history.exponent or 0)", "unit = 1.0"),
            "a velocity's absolute error": ("/ v_old.flatten(1).norm(dim=1)", "/ 1"),
            "velocity error of the last micro-batch": (
                "torch.maximum(velocity_error, result.velocity_error.max())",
                "result.velocity_error.max()",
            ),
            "the loss without its scale": (
                "(result.loss.sum() * (loss_scale / normaliser))",
                "(result.loss.sum() / normaliser)",
            ),
            "gradients kept": ("    optimizer.zero_grad(set_to_none=True)\n", ""),
            "learning rate not set": ('group["lr"] = lr', 'group["lr"] = group["lr"]'),
            "warm-up off by one": ("(update + 1) / warmup", "update / warmup"),
            "EMA swapped": ("lerp_(parameters[name], 1 - decay)", "lerp_(parameters[name], decay)"),
            "EMA decays slowly from the start": (
                "decay = min(self.decay, (1 + self.updates) / (10 + self.updates))",
                "decay = self.decay",
            ),
            "EMA counts no updates": ("        self.updates += 1\n", ""),
            "EMA shares the weights' memory": ("p.detach().clone()", "p.detach()"),
        },
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_gradient.py", "test_update.py"),
        {
            "old policy takes the solver's step": (
                "objective(log_new, log_policy_of(v_old)",
                "objective(log_new, log_policy(candidates, inside(self.trajectories.x_next[k, row]), tau)",
            )
        },
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_gradient.py", "test_update.py"),
        {"advantages of the first prompt": ("self.advantages[prompt]", "self.advantages[prompt * 0]")},
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_gradient.py", "test_update.py"),
        {"candidates of another step": ("self.groups[k, prompt]", "self.groups[k - 1, prompt]")},
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_gradient.py", "test_update.py"),
        {"temperature of the first step": ("self.tau[k, prompt]", "self.tau[0, prompt]")},
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_gradient.py", "test_update.py"),
        {"KL without its weight": ("self.grpo.kl_weight * away", "away")},
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_gradient.py", "test_update.py"),
        {
            "KL to the reference reversed": (
                "kl_divergence(log_new, log_reference)",
                "kl_divergence(log_reference, log_new)",
            )
        },
    ),
    Target(
        "trainer/objectives/neighbor.py",
        ("test_rollout_batch.py",),
        {"reference always asked": ("config.grpo.kl_weight > 0", "True")},
    ),
]
