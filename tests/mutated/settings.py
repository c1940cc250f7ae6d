"""Mistakes in the settings: bounds, what is stored, what may change."""

from .target import Target

TARGETS = [
    Target(
        "trainer/settings/described.py",
        ("test_described.py",),
        {
            "the least is too little": ("value >= self.least", "value > self.least"),
            "a bound above is reached": ("value > self.above", "value >= self.above"),
            "the most is too much": ("value <= self.most", "value < self.most"),
            "a bound below is reached": ("value < self.below", "value <= self.below"),
            "any word": ("or value in self.choices", "or True"),
            "other words are none": ("or bool(self.others) or", "or"),
            "a class of one's own is none": (" or (self.own and is_own(value))", ""),
            "a list is one value": ("value if isinstance(value, tuple) else (value,)", "(value,)"),
            "a section's own rules do not count": ("        self.check()\n", ""),
            "all is stored": ("known.omit_default and getattr", "False and getattr"),
            "what is omitted is never stored": ("getattr(section, f.name) == f.default", "True"),
            "a field begins at the bound": ("self.above + finest", "self.above"),
            "a field ends at the bound": ("self.below - finest", "self.below"),
        },
    ),
    Target(
        "trainer/training/run_folder.py",
        ("test_described.py",),
        {
            "what was not stored differs": ("{**_defaults(section), **stored.get(name, {})}", "stored.get(name, {})"),
            "defaults over what was stored": (
                "{**_defaults(section), **stored.get(name, {})}",
                "{**stored.get(name, {}), **_defaults(section)}",
            ),
            "a server stays where it is": ("(kind.may_change if kind else ())", "()"),
        },
    ),
    Target(
        "trainer/settings/model.py",
        ("test_described.py",),
        {"another offload is another run": ("        step=0.05,\n        may_change=True,\n", "        step=0.05,\n")},
    ),
]
