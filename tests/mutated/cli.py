"""Mistakes in the command line: what it answers before torch, and whose lines are on the terminal."""

from .target import Target

TARGETS = [
    Target(
        "trainer/cli/libraries.py",
        ("test_libraries.py",),
        {
            "stdout is theirs": ("    os.dup2(file, OUT)\n", ""),
            "stderr is theirs": ("    os.dup2(file, ERR)\n", ""),
            "our warnings are in the log alone": ("    for name in OURS:", "    for name in ():"),
            "Python's words on our coroutines too": ('__name__.partition(".")[0], "asyncio")', '"trainer",)'),
            "a traceback is left out": ("if record.exc_info else", "if False else"),
            "a warning of several lines": ('" ".join(record.getMessage().split())', "record.getMessage()"),
            "what was said before is lost": ("        shutil.copyfileobj(said, file)\n", ""),
            "an older log is lost": ('folder / LOG, "ab"', 'folder / LOG, "wb"'),
            "a traceback goes to the log": ("            os.dup2(fd, number)", "            pass"),
            "other processes get a log": ("    if not terminal.apart:\n        return\n", ""),
        },
    ),
    Target(
        "trainer/cli/lasting.py",
        ("test_lasting.py",),
        {
            "a character that is missing ends it": (
                '"backslashreplace" if errors in (None, "strict") else errors',
                "errors",
            ),
            "a reader that left ends it": (
                "        except OSError as error:\n            if",
                "        except ZeroDivisionError as error:\n            if",
            ),
            "no room is no loss": ("if error.errno in FULL:", "if False:"),
            "who left is missed": ("if error.errno in FULL:", "if True:"),
            "a full pipe gets a part": (
                "                left = left[written or 0 :]\n",
                "                left = left[size:]\n",
            ),
        },
    ),
    Target(
        "trainer/cli/output.py",
        ("test_libraries.py",),
        {
            "a line breaks the bar": ("tqdm.write(text, file=terminal.err)", "print(text, file=terminal.err)"),
            "results on stderr": ("print(text, file=terminal.out", "print(text, file=terminal.err"),
        },
    ),
    Target(
        "trainer/settings/described.py",
        ("test_mistakes.py",),
        {
            "torch comes first": (
                "from ..errors import ConfigError, brief\n",
                "import torch\nfrom ..errors import ConfigError, brief\n",
            )
        },
    ),
    Target(
        "trainer/rewards/table.py",
        ("test_mistakes.py",),
        {
            "weights of another kind": (
                '"hpsv2": Kind("hpsv2_package:hpsv2", weights={"path": "hpsv2.1"}',
                '"hpsv2": Kind("hpsv2_package:hpsv2", weights=CLIP_L',
            ),
        },
    ),
    Target(
        "trainer/rewards/__init__.py",
        ("test_mistakes.py",),
        {
            "the path counts for nothing": ('find(what, options.get(option, ""))', "find(what)"),
        },
    ),
]
