"""Mistakes in the prediction of memory, and in what it advises."""

from .target import Target

TARGETS = [
    Target(
        "trainer/planning/choice.py",
        ("test_planning_choice.py",),
        {
            "no margin": ("room = free * (1 - MARGIN)", "room = free"),
            "encoders count": ('if phase != "encode"', "if True"),
            "the first of all": ("        if max(peaks.values()) <= room:\n", "        if True:\n"),
            "everything is counted": ("        if expected > room:\n", "        if False:\n"),
            "bf16 with offload": ("    if not least:\n", "    if True:\n"),
            "a named plan is chosen anew": ("    if model.memory != AUTO:\n", "    if False:\n"),
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
            "rollout without the model": ("if next(calls) != self.only:", "if True:"),
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
                "        parameter.grad = torch.zeros_like(parameter)\n    gradient",
                "        pass\n    gradient",
            ),
            "optimiser without a state": ("    _step(setup, state)\n    return state", "    return state"),
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
        ("test_planning_sizes.py",),
        {
            "estimates are chosen": ("next((p for p in fitting if not p.estimated), None)", "next(fitting, None)"),
            "the micro-batch is not said": ('", run.micro_batch = {size}" if size else ""', '""'),
            "as many as before": ("replace(config.run, micro_batch=size)", "config.run"),
            "down to one": ("        if advice.fits(prediction.device, vram):\n            return\n", ""),
        },
    ),
    Target(
        "trainer/planning/models.py",
        ("test_planning_sizes.py",),
        {
            "no picture to begin from": ("if config.init.image else ()", "if False else ()"),
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
