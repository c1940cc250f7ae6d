"""Mistakes in the prediction of memory, and in what it advises."""

from .target import Target

TARGETS = [
    Target(
        "trainer/planning/choice.py",
        ("test_planning_choice.py",),
        {
            "no margin": ("room = free * (1 - MARGIN)", "room = free"),
            "encoders count": ('if phase != "encode"', "if True"),
            "the first of all": ("if phase != ROLLOUT) <= room", "if phase != ROLLOUT) >= 0"),
            "everything is counted": ("        if expected > room:\n", "        if False:\n"),
            "bf16 with offload": ("    if not least:\n", "    if True:\n"),
            "a named plan is chosen anew": ("    if model.memory != AUTO:\n", "    if False:\n"),
            "a named number is found anew": (" if run.rollout_batch == AUTO else named", ""),
            "nothing is counted for what is kept": ("run.rollout_batch, model.keep_inputs):", "run.rollout_batch):"),
            "kept without room": ("if max(peaks.values()) > room:", "if False:"),
            "counted as if nothing were kept": ("replace(config.model, keep_inputs=True)", "config.model"),
            "nobody is told": ("told = log.warning if", "told = log.info if"),
            "a rollout that does not fit": ("fits = peaks[ROLLOUT] <= room", "fits = True"),
            "a smaller rollout is not counted": (
                "fits = least <= room and _peaks(config, smaller, predict)[ROLLOUT] <= room",
                "fits = least <= room",
            ),
            "the rollout decides about the plan": ("if phase != ROLLOUT) <= room", "if True) <= room"),
            "parts of any size": ("{-(-candidates // parts) for parts", "{parts for parts"),
            "4 bits are counted": ('"fp8" if model.memory == "nf4" else', '"nf4" if model.memory == "nf4" else'),
            "halved to nothing": ("return [size] if size == 1 else", "return [size] if size <= 2 else"),
        },
    ),
    Target(
        "trainer/planning/tracker.py",
        ("test_planning_tracker.py",),
        {
            "freed tensors still count": ("        self.live[where] -= size", "        pass"),
            "a view counts again": ("        self._forget(address)\n        self._known", "        self._known"),
            "growth unseen": ("known is None or known[1] != storage.nbytes()", "known is None"),
            "the peak is the last": ("max(self.peak[where], self.live[where])", "self.live[where]"),
            "peaks never begin anew": ("self.peak = dict(self.live)", "pass"),
            "everything on the device": ("== self.compute else HOST", "== self.compute else DEVICE"),
            "attention writes its matrix": ("if query.is_meta else original", "if False else original"),
            "real attention replaced": ("(_fused if query.is_meta else original)", "_fused"),
        },
    ),
    Target(
        "trainer/planning/stand_ins.py",
        ("test_planning_memory.py",),
        {
            "the decoder's weights forgotten": ("[torch.empty_like(parameter).copy_(parameter) for", "[None for"),
            "rollout without the model": ("            if next(calls) != self.only:\n", "            if True:\n"),
        },
    ),
    Target(
        "trainer/planning/stand_ins.py",
        ("test_planning_copies.py",),
        {
            "nothing is copied ahead": ("min(LayerFetcher.ahead, offloaded)", "0"),
            "more ahead than there is": ("min(LayerFetcher.ahead, offloaded)", "LayerFetcher.ahead"),
            "made ahead on the host": ("tracker.place([self._ahead], DEVICE)", "pass"),
            "brought for nothing": (
                "        return torch.empty_like(tensor).copy_(tensor)\n",
                "        return tensor\n",
            ),
        },
    ),
    Target(
        "trainer/models/lora/attach.py",
        ("test_planning_copies.py",),
        {"peft's LoRA on planned layers": ("isinstance(layer, FrozenLinear)", "type(layer) is FrozenLinear")},
    ),
    Target(
        "trainer/planning/rewards.py",
        ("test_planning_copies.py",),
        {"nothing waits at home": ("if self.was_home and not goes_home else ()", "if False else ()")},
    ),
    Target(
        "trainer/planning/phases.py",
        ("test_planning_copies.py",),
        {"pictures are encoded on the host": ("        if config.init.image:\n", "        if False:\n")},
    ),
    Target(
        "trainer/planning/phases.py",
        ("test_planning_memory.py",),
        {
            "no gradients of other micro-batches": (
                "            parameter.grad = torch.zeros_like(parameter)\n    with",
                "            pass\n    with",
            ),
            "gradients of others though there are none": ("    if max(micro_batches) > 1:\n", "    if True:\n"),
            "optimiser without a state": ("    _step(setup, state)\n    return", "    return"),
            "checkpointing always": ("        if config.model.checkpointing:\n", "        if True:\n"),
        },
    ),
    Target(
        "trainer/planning/phases.py",
        ("test_planning_sizes.py",),
        {
            "the first of the sizes": (".index(config.sampling.largest)", ".index(config.sampling.all_sizes[0])"),
            "micro-batch matters everywhere": ('("encode", "load", "reward")', "PHASES"),
        },
    ),
    Target(
        "trainer/planning/report.py",
        ("test_planning_sizes.py", "test_planning_fastest.py"),
        {
            "the micro-batch is not said": ('", run.micro_batch = {size}" if size else ""', '""'),
            "kept inputs are not said": ('", model.keep_inputs = true" if', '"" if'),
            "as in the update, it says": ('"as many as fit" if', "run.drawn_at_once if"),
            "always the same card": ("card = nearest(vram)", "card = nearest(24)"),
        },
    ),
    Target(
        "trainer/planning/predictions.py",
        ("test_planning_sizes.py", "test_planning_fastest.py"),
        {
            "estimates are chosen": ("and not p.estimated]", "]"),
            "the slowest": ("least = min(", "least = max("),
            "the first that fits": ("<= EQUAL * least", "<= 1e9"),
            "a hair faster is better": ("EQUAL = 1.01", "EQUAL = 1.0"),
            "inputs kept against the settings": ("config.model.keep_inputs == AUTO and", "True and"),
            "inputs kept without checkpointing": (" and config.model.checkpointing:", ":"),
            "nothing is kept": ("keeps=True)\n        yield", "keeps=False)\n        yield"),
            "as many as before": ("-(-size // 2)", "size - 0"),
            "down to one": ("(_too_wide(last, vram) and size > 1)", "(not growing and size > 1)"),
            "never more": ("(growing and size < pairs)", "False"),
            "more though it is slower": (" and last.seconds(card) < before.seconds(card)", ""),
            "the rollout as the update": ("drawn_at_once(config) if left", "[micro_batch] if left"),
            "the rollout whatever it takes": (
                "if vram is None or advice.fits(measured.peaks[ROLLOUT].device, vram):",
                "if True:",
            ),
        },
    ),
    Target(
        "trainer/planning/kernels.py",
        ("test_planning_kernels.py",),
        {
            "results are free": ("written = sum(map(size_of, made))", "written = 0"),
            "arguments are free": ("else sum(others)", "else 0"),
            "what is overwritten is read": ("0 if name in OVERWRITING else", ""),
            "what changes is not read": ("read = 0 if name in OVERWRITING else sum(map(size_of, changed))", "read = 0"),
            "the whole table is read": ("min(size, written) for size in others", "size for size in others"),
            "in place without arithmetic": ("or flop_registry.get(plain)", ""),
            "allocations are kernels": ('or "empty" in name ', ""),
            "repeated elements count": ("length if stride else min(length, 1)", "length"),
            "everything is thick": ("flop >= RIDGE * moved", "flop"),
            "the host's operations count": (" or all(map(on_host, made))", ""),
            "copies from the host are the device's": ("if name in TRANSFERS and on_host(given[-1]):", "if False:"),
            "every name counts all": ("            times *= repeated\n", ""),
            "nothing is repeated": ("self.work[name][kernel] += times", "self.work[name][kernel] += 1"),
            "the result's precision": ("(given or made)[0].itemsize", "made[0].itemsize"),
        },
    ),
    Target(
        "trainer/planning/roofline.py",
        ("test_planning_roofline.py",),
        {
            "bytes alone": ("max(kernel.flop / (rate * 1e12), ", "max(0, "),
            "arithmetic alone": (", kernel.bytes / (card.bandwidth * 1e12))", ", 0)"),
            "once each": ("+ times * _of", "+ _of"),
            "copies one after the other": ("max(sum(times.values()), fetching)", "sum(times.values()) + fetching"),
            "copies take no time": ("max(sum(times.values()), fetching)", "sum(times.values())"),
            "8 bits as slow as 16": ("{1: card.fp8, ", "{1: card.bf16, "),
            "everything that was counted": ("for phase in OF_ITERATION", "for phase in work"),
        },
    ),
    Target(
        "trainer/planning/cards.py",
        ("test_planning_roofline.py",),
        {
            "the shortest name": ("return max(inside", "return min(inside"),
            "any number within": (r"(?<!\d){card.name}(?!\w)", "{card.name}"),
            "the table's bandwidth": (", bandwidth=bandwidth", ""),
            "the table's 8 bits": ('"fp8": like.fp8 * share', '"fp8": like.fp8'),
            "the fastest of a size": ("CARDS, key=", "CARDS[::-1], key="),
        },
    ),
    Target(
        "trainer/planning/stand_ins.py",
        ("test_planning_memory.py", "test_planning_fastest.py"),
        {"a call counts for itself alone": ("times=self.calls)", "times=1)")},
    ),
    Target(
        "trainer/planning/phases.py",
        ("test_planning_memory.py", "test_planning_fastest.py"),
        {
            "a micro-batch counts for itself alone": ("times=sum(micro_batches))", "times=1)"),
            "counts of before": ("        kernels.work.clear()\n", ""),
            "modulated by the measure before": ("            modulation.forget()", "            pass"),
            "the LoRA is rounded once and for all": (
                "    torch.autograd.graph.increment_version(list(setup.lora.values()))\n",
                "",
            ),
            "copies of the LoRA come late": ("            layer.rounded(setup.policy.dtype)\n", "            pass\n"),
        },
    ),
    Target(
        "trainer/planning/models.py",
        ("test_planning_sizes.py",),
        {
            "no picture to begin from": ("if settings.image else ()", "if False else ()"),
            "no mask": ("torch.ones(size) if settings.mask else None", "None"),
        },
    ),
    Target(
        "trainer/planning/advice.py",
        ("test_planning_advice.py",),
        {
            "no reserve": ("peak / GIB + RESERVE", "peak / GIB"),
            "every solver asks once a step": (
                "solver_of(config.sampling.solver).evaluations(config.sampling.steps)",
                "config.sampling.steps",
            ),
            "sizes that FLUX does not take": ("// PIXELS_PER_TOKEN * PIXELS_PER_TOKEN", ""),
        },
    ),
]
