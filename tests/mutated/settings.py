"""Mistakes in the settings: bounds, what is stored, what may change."""

from .target import Target

TARGETS = [
    Target(
        "trainer/texts.py",
        ("test_texts.py",),
        {
            "a mark is text": ("    data = data[len(mark) :]\n", ""),
            "UTF-16 is UTF-8": ("for m, e in MARKS if", "for m, e in MARKS[:1] if"),
            "UTF-32 is UTF-16": ('    (codecs.BOM_UTF32_LE, "utf-32-le"),\n', ""),
            "zero bytes are text": ('    if "\\0" in text:', "    if False:"),
            "a pipe is read": ("if not stat.S_ISREG(mode):", "if False:"),
            "a file of any size": ("if len(data) > most:", "if False:"),
            "lines end at U+2028": ('.replace("\\r", "\\n").split("\\n")', ".splitlines()"),
            "old line ends stay": (
                'return text.replace("\\r\\n", "\\n").replace("\\r", "\\n")\n\n\ndef _read',
                'return text.replace("\\r\\n", "\\n")\n\n\ndef _read',
            ),
            "lines are counted from 0": ('.count(b"\\n") + 1', '.count(b"\\n")'),
        },
    ),
    Target(
        "trainer/prompt_files.py",
        ("test_prompt_files.py",),
        {
            "comments are prompts": ('if _is_seen(line) and not line.startswith("#")]', "if _is_seen(line)]"),
            "indented comments are prompts": (
                "stripped = (_stripped(line) for line in lines_of(text))",
                "stripped = lines_of(text)",
            ),
            "null is a prompt": ("if not isinstance(value, str):", "if False:"),
            "spaces are a prompt": ("    if not _is_seen(value):", "    if not value:"),
            "half a character is one": ("if HALVES.search(value):", "if False:"),
            "no prompt is fine": ("    if not prompts:", "    if False:"),
            "upper case is another kind": ("path.suffix.lower()", "path.suffix"),
            "the last key counts": ("known[key] for key in KEYS if", "known[key] for key in KEYS[::-1] if"),
            "JSON is cut into lines": ('    if suffix == ".json":', "    if False:"),
            "commas alone": ('".csv": ",;\\t"', '".csv": ","'),
            "more cells than the header": ("if len(row) != width:", "if False:"),
            "loose quotes": ("strict=True, ", ""),
            "a numbered row is a comment": (' or first.startswith("# "))', " or True)"),
        },
    ),
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
            "what was not stored differs": (
                "return completed_by(as_now(stored), sections)",
                "return dict(stored)",
            ),
            "a server stays where it is": ("(kind.may_change if kind else ())", "()"),
        },
    ),
    Target(
        "trainer/settings/presets.py",
        ("test_presets.py",),
        {
            "a preset over what the file says": ("{**defaults[name], **its}", "{**its, **defaults[name]}"),
            "older runs have today's pairs": ('return {} if "pairing" in', 'return {} if True or "pairing" in'),
            "all runs are older ones": ('return {} if "pairing" in', 'return {} if False and "pairing" in'),
            "a section that is none is one": ("if isinstance(its, Mapping)", "if its"),
        },
    ),
    Target(
        "trainer/settings/config_file.py",
        ("test_presets.py",),
        {
            "any preset": (" and name in PRESETS", ""),
            "former defaults over a preset": (
                "completed_by(preset_in(table), defaults)",
                "preset_in(completed_by(table, defaults))",
            ),
        },
    ),
    Target(
        "trainer/training/run_folder.py",
        ("test_presets.py",),
        {"a run of before is of today": ("completed_by(as_now(stored), sections)", "completed_by(stored, sections)")},
    ),
    Target(
        "trainer/cli/train.py",
        ("test_presets.py",),
        {"a run of before has today's defaults": ("if arguments.resume and (before", "if False and (before")},
    ),
    Target(
        "trainer/settings/model.py",
        ("test_described.py",),
        {"another offload is another run": ("        step=0.05,\n        may_change=True,\n", "        step=0.05,\n")},
    ),
]
