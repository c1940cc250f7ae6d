"""Mistakes in how a class is found that a setting names, and in rewards that are such classes."""

from .target import Target

TARGETS = [
    Target(
        "trainer/plugins.py",
        ("test_plugins.py",),
        {
            "the working directory first": ("sys.path.append(here)", "sys.path.insert(0, here)"),
            "not from the working directory": ("sys.path.append(here)", "pass"),
            "any text names a class": ("if not all(part.isidentifier()", "if False and not all(part.isidentifier()"),
            "self is an option": ("_taken(own[0].args, skip=1)", "_taken(own[0].args)"),
            "what is inherited is nothing": ("HIDDEN if node.bases else Outline()", "Outline()"),
            "decorators are not seen": ("if node is None or node.decorator_list:", "if node is None:"),
            "the first options are those with a default": (
                "names[skip : len(names) - len(arguments.defaults)]",
                "names[skip + len(arguments.defaults) :]",
            ),
            "options after the star need no value": ("for a, default in alone if default is None", "for a, _ in []"),
            "any name counts as unknown": ("tuple(required), bool(arguments.kwarg))", "tuple(required))"),
            "a method that is inherited is missed": ("not (node.bases or node.keywords or", "not (node.keywords or"),
            "a method that is missing": ("if method and not callable(", "if not callable("),
            "what is needed may lack": ("if name not in options]", "if name in options]"),
            "star imports give nothing": ('{attribute, "*"} & _names', "{attribute} & _names"),
            "every package that lacks another is missing": (
                'f"{module}.".startswith(f"{error.name}.")',
                'f"{module}."',
            ),
        },
    ),
    Target(
        "trainer/rewards/__init__.py",
        ("test_own_reward.py",),
        {
            "no device": ('if "device" in outline.takes', "if False"),
            "left where it was made": ('if "device" not in given and hasattr', "if False and hasattr"),
            "options that nobody takes": ("if wrong := outline.misfit(given):", 'if wrong := "":'),
        },
    ),
    Target(
        "trainer/training/taken.py",
        ("test_own_reward.py",),
        {
            "anybody's code": (
                "    if kind is None:\n        return RUNS\n",
                "    if kind is None:\n        return ''\n",
            )
        },
    ),
    Target(
        "trainer/training/taken.py",
        ("test_sample_strangers.py",),
        {
            "a file may name servers": ("        return SENDS\n", "        return ''\n"),
            "a file may name files": ("    if not brought.is_run:\n        return READS\n", ""),
            "a hub is local": ('"/\\\\", HUB)', '"/\\\\")'),
        },
    ),
    Target(
        "trainer/training/lora_header.py",
        ("test_sample_strangers.py",),
        {
            "any word": ("return value in setting.choices", "return True"),
            "classes by their names": ("and kind in KINDS else OWN", "else OWN"),
        },
    ),
    Target(
        "trainer/planning/rewards.py",
        ("test_planning_rewards.py",),
        {
            "one model of each size": ('kind.weights.get("path", kind.model), settings', "kind.model, settings"),
            "every model for itself": ("if key not in known:", "if True:"),
            "narrowed whatever it computes in": ('else "float32"', 'else "auto"'),
        },
    ),
]
