"""Mistakes in `bench gpu`: checks that look away."""

from .target import Target

HARNESS = ("test_bench_gpu.py", "test_bench_gpu_command.py", "test_bench_gpu_counts.py")
PATHS, NUMBERS = ("test_bench_gpu_paths.py",), ("test_bench_gpu_numbers.py",)
SPEED, ENDING = ("test_bench_gpu_speed.py",), ("test_bench_gpu_ending.py",)
FOLDER = "trainer/benchmarks/gpu/"

TARGETS = [
    Target(
        FOLDER + "results.py",
        HARNESS,
        {
            "no lower bound": ("self.low is None or self.low <= self.value", "True"),
            "not a number fits": ("self.value <= self.high)", "not self.value > self.high)"),
            "words are not compared": ("return self.value == self.equals", "return True"),
            "nothing deviates": ("DEVIATES if odd else OK", "OK"),
            "nan in JSON": ("isinstance(self.value, str) or math.isfinite(self.value)", "True"),
        },
    ),
    Target(
        FOLDER + "harness.py",
        HARNESS,
        {
            "no budget": ("if check.seconds > left:", "if False:"),
            "values before an exception are lost": ("            values.append(value)\n", "            pass\n"),
            "a failed check keeps its model": (
                "            bench.loaded = None  # whatever",
                "            pass  # whatever",
            ),
            "no end at the budget": ("if time.monotonic() > deadline:", "if False:"),
            "a broken device is not told": (
                "            raise Broken(in_one_line(error)) from error\n",
                "            pass\n",
            ),
            "skipped is failed": ("status, reason = SKIPPED, str(error)", "status, reason = FAILED, str(error)"),
        },
    ),
    Target(
        FOLDER + "command.py",
        HARNESS,
        {
            "nobody goes on": ('return ",".join(map(str, left)) or None', "return None"),
            "the first words": (".splitlines() or", ".splitlines()[:1] or"),
            "no name": ("FAILED, reason=reason)", 'FAILED, reason="")'),
        },
    ),
    Target(
        FOLDER + "report.py",
        HARNESS,
        {
            "the last check alone": ("list(self.rows.values())}", "list(self.rows.values())[-1:]}"),
            "the head of the last process": ("        if not self.facts:\n", "        if True:\n"),
            "failed is well": ("in (DEVIATES, FAILED) for", "in (DEVIATES,) for"),
        },
    ),
    Target(
        FOLDER + "counts.py",
        HARNESS,
        {
            "estimates count": ('and not plan["estimated"]', ""),
            "any shape": ("width == height and ", ""),
            "any rollout": ("and alike ", ""),
            "inputs kept": (' and not plan.get("keep_inputs")', ""),
            "counted each time": ("if case not in self.known:", "if True:"),
        },
    ),
    Target(
        FOLDER + "bench.py",
        HARNESS,
        {
            "everything fits": ("if needed > free / GIB:", "if False:"),
            "one model for all plans": ("self.loaded[0] != plan:", "False:"),
        },
    ),
    Target(
        FOLDER + "ground.py",
        PATHS,
        {
            "what arrives is not looked at": (
                "return seconds, torch.equal(target.cpu(), host)",
                "return seconds, True",
            ),
            "every kernel works": ("if kernel in FUSED and off <= WRONG else []", "if kernel in FUSED else []"),
            "gradients of no direction": ("off = relative(attention_gradient(bench, kernel), exact)", "off = 0.0"),
        },
    ),
    Target(
        FOLDER + "paths.py",
        PATHS,
        {
            "the device against itself": ("relative(found.x_0, expected[key].x_0)", "relative(found.x_0, found.x_0)"),
            "no direction": (
                "return float(a @ b / (a.norm() * b.norm()))",
                "return float(abs(a @ b) / (a.norm() * b.norm()))",
            ),
            "waits of no phase": ('clock.within("rollout") + clock.within("update")', "0"),
            "waits of the step too": ('        clock.now = "after the first update"', '        clock.now = "update"'),
        },
    ),
    Target(
        FOLDER + "offload.py",
        NUMBERS,
        {
            "the fetcher against itself": (
                "            layer.fetcher = Plain(bench.card.device)\n",
                "            pass\n",
            ),
            "gradients unseen": ("enumerate((v, gradients))", "enumerate((v, again[0][1]))"),
            "no NaN": ("POISON = 0xFF", "POISON = 0x7F"),
        },
    ),
    Target(
        FOLDER + "offload.py",
        SPEED,
        {
            "all of it hidden": ("return 1 - (fetched - resident) / copying", "return 1.0"),
            "copies of some": (
                "for layer in layers:\n            torch.empty_like",
                "for layer in layers[:1]:\n            torch.empty_like",
            ),
        },
    ),
    Target(
        FOLDER + "velocities.py",
        NUMBERS,
        {
            "never with gradient": ("torch.set_grad_enabled(gradient)", "torch.set_grad_enabled(False)"),
            "one micro-batch": ("evaluated(setup, other, gradient=False)", "evaluated(setup, size, gradient=False)"),
            "bf16 against bf16": ('relative(found["fp8"], found["bf16"])', 'relative(found["bf16"], found["bf16"])'),
            "float32 against float32": (
                "random_vae(bench.sizes.path, {}, dtype)",
                "random_vae(bench.sizes.path, {}, torch.float32)",
            ),
        },
    ),
    Target(
        FOLDER + "speed.py",
        SPEED,
        {
            "all kernels are known": ('OTHER = "other"', 'OTHER = "elementwise"'),
            "breaks do not count": ('float(sum(counters["graph_break"].values()))', "0.0"),
            "stays compiled": ("        block._compiled_call_impl = None\n", "        pass\n"),
        },
    ),
    Target(
        FOLDER + "ending.py",
        ENDING,
        {
            "the optimiser alone": ("same and not state.optimizer.state", "not state.optimizer.state"),
            "nobody stops": ("            raise Stopped\n", "            pass\n"),
            "resumed against itself": ("zip(resumed, straight, strict=True)", "zip(straight, straight, strict=True)"),
            "any LoRA has learnt": ('"yes" if moved(bench, straight) else "no"', '"yes"'),
        },
    ),
    Target(
        FOLDER + "again.py",
        ENDING,
        {
            "the other process is well": ('found["reason"] or found["status"]', '"ok"'),
            "peaks are not compared": ('value["name"].endswith(" peak")', "False"),
        },
    ),
]
