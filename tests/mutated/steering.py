"""Mistakes in what a person steers a run by, and in the pictures beside the training."""

from .target import Target

TARGETS = [
    Target(
        "trainer/training/control.py",
        ("test_control.py",),
        {
            "nothing is checked": ("OptimizerSettings(learning_rate=learning_rate)  # checks", "pass"),
            "infinity passes": ("value is None or math.isfinite(value)", "True"),
            "the last wish alone counts": (
                "self._strength = self._strength if strength is None else float(strength)",
                "self._strength = strength",
            ),
            "a change is taken again and again": (
                "self._learning_rate = self._strength = None\n        return",
                "return",
            ),
            "a save is taken again and again": ("wished, self._save = self._save, False", "wished = self._save"),
            "a pause is waited for in vain": (
                "lambda: not self._paused or self.ending or self._save",
                "lambda: False",
            ),
            "later changes stay": ("if c.iteration < change.iteration]", "if c.iteration != change.iteration]"),
            "a change of the same iteration is lost": (
                "now = change_at(changes, change.iteration) or change",
                "now = change",
            ),
            "changes come one iteration late": (
                "if change.iteration <= iteration and change.learning_rate",
                "if change.iteration < iteration and change.learning_rate",
            ),
            "a strength holds from the start": ("change.iteration <= iteration and change.strength", "change.strength"),
        },
    ),
    Target(
        "trainer/training/loop.py",
        ("test_control.py",),
        {
            "a pause does not save": (
                "            self.save_if_new()\n            self.on_event(Paused",
                "            self.on_event(Paused",
            ),
            "a stop does not end a pause": (
                "                self.stop_if_asked()\n",
                "",
            ),
            "no save during a pause": (
                "                self.save_if_asked()\n                control.wait",
                "                control.wait",
            ),
            "the wish to stop is not heard": (
                "if ending := self.control.ending:",
                "if ending := None:",
            ),
            "the reason is lost": (
                "                return ending\n",
                "                return Ending(STOPPED)\n",
            ),
            "changes are told and not made": ("iterate(self.setup.under(config), state", "iterate(self.setup, state"),
            "a change made again is not told": (
                "        if change := change_at(state.changes, state.iteration):",
                "        if change := wish:",
            ),
            "what is saved is saved again": ("if self.saved != self.state.iteration:", "if True:"),
        },
    ),
    Target(
        "trainer/training/loop.py",
        ("test_evaluation.py",),
        {
            "no evaluation before the first iteration": (
                "iteration == 0 or (every > 0 and iteration",
                "(every > 0 and iteration",
            ),
            "no evaluation at the end": (
                "                self.on_event(evaluate(self.setup, self.state.iteration))\n        self.on_event(F",
                "                pass\n        self.on_event(F",
            ),
            "a stopped run is concluded": (
                "if ending.kind != STOPPED and self.setup.evaluation",
                "if self.setup.evaluation",
            ),
            "a cancel in the last evaluation is an error": (
                "with suppress(Stopped), as_exported(self.setup, self.state):",
                "with as_exported(self.setup, self.state):",
            ),
            "the last weights are evaluated at the end": (
                "with suppress(Stopped), as_exported(self.setup, self.state):",
                "with suppress(Stopped):",
            ),
            "base pictures every time": ("if base_due(setup, iteration):", "if True:"),
            "base pictures without a place to store them": ("(run.base_every, run.tiles_every))", "(run.base_every,))"),
        },
    ),
    Target(
        "trainer/training/base_noises.py",
        ("test_evaluation.py",),
        {
            "every base picture of the first prompt": (
                "told, every = conditioning_of(setup, prompts)",
                "told, every = conditioning_of(setup, [0] * len(prompts))",
            ),
            "base noises of other seeds": (
                "base_noise(setup.geometry.latent_shape, seed)",
                "base_noise(setup.geometry.latent_shape, seed + 1)",
            ),
        },
    ),
    Target(
        "trainer/training/evaluate.py",
        ("test_evaluation.py",),
        {
            "the base noise of another seed": (
                "base_noise(setup.geometry.latent_shape, seed) for",
                "base_noise(setup.geometry.latent_shape, seed + 1) for",
            ),
            "every picture from the first init": (
                "known.index(text) if text in known else 0 for",
                "0 for",
            ),
            "evaluated on the training's prompts": (
                "sample(setup, setup.evaluation,",
                "sample(setup, setup.conditioning,",
            ),
        },
    ),
    Target(
        "trainer/training/evaluate.py",
        ("test_evaluation_parts.py",),
        {
            "all pictures at once": ("range(0, len(prompts), at_once)", "range(0, len(prompts), 999)"),
            "the first part's prompts": (
                "pictures_of(setup, conditioning[part],",
                "pictures_of(setup, conditioning[:at_once],",
            ),
            "the first part's seeds": ("seeds[part], inits", "seeds[:at_once], inits"),
        },
    ),
    Target(
        "trainer/training/run_folder.py",
        ("test_described.py",),
        {"evaluation prompts are fixed": ("if name in free or old == new:", "if old == new:")},
    ),
    Target(
        "trainer/training/run.py",
        ("test_run_control.py", "test_evaluation.py"),
        {
            "the store's changes are forgotten": ("state.changes = store.changes() or state.changes", "pass"),
            "the checkpoint's changes are forgotten": (
                "state.changes = [Change(**change) for change in checkpoint.changes]",
                "pass",
            ),
            "the first try's changes stay": ("store.set_info(changes=[], started=None)", "pass"),
            "a failure is not told": ("listener(Finished(state.iteration, Ending(", "str((state.iteration, Ending("),
            "a listener's own error hides the first": ("with suppress(Exception):", "if True:"),
            "changes to come are told by the LoRA": (
                "if change.iteration < state.iteration]",
                "if change.iteration < 3]",
            ),
        },
    ),
    Target(
        "trainer/models/flux1/text.py",
        ("test_evaluation.py",),
        {"the first set for all": ("range(0, len(prompts), BATCH)", "range(0, len(prompts := sets[0]), BATCH)")},
    ),
    Target(
        "trainer/stages/surrogate.py",
        ("test_surrogate.py",),
        {
            "distances not rooted": ("square().mean(-1).sqrt()", "square().mean(-1)"),
            "distances summed": ("square().mean(-1).sqrt()", "square().sum(-1).sqrt()"),
        },
    ),
    Target(
        "trainer/settings/config_file.py",
        ("test_config_file.py",),
        {
            "evaluation prompts not read": ('"evaluation": read_evaluation, ', ""),
        },
    ),
    Target(
        "trainer/settings/typed.py",
        ("test_config_file.py",),
        {
            "a text is a list of letters": ("fits = isinstance(value, list | tuple) and all", "fits = all"),
            "any section's name is a key": ("types = {f.name: hints[f.name] for f in fields(cls)}", "types = hints"),
        },
    ),
]
