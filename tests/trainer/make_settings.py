"""The settings' tables in docs/configuration.md, made from the settings' own descriptions.

usage: python tests/trainer/make_settings.py    writes the tables anew
"""

import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from trainer.reward_server.config import ServerSettings
from trainer.settings.config import SECTIONS, RewardSettings
from trainer.settings.described import Section, described
from trainer.settings.presets import PRESETS

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HEADING = "## All settings\n"
INTRO = """
<!-- written by `python tests/trainer/make_settings.py`: the texts stand in trainer/settings/ -->

`prompts` and `preset` stand above all sections. `prompts` is a list of texts, or a file: a .txt file has one prompt a
line, and comments behind a #; .jsonl and .json have texts, or objects with "prompt", "text" or "caption"; .csv has one
column, or one of such a name. What matters most: `run.micro_batch` (memory), `grpo.group_size`, `grpo.strength`,
`optimizer.learning_rate`, `run.iterations`.

`preset = "NAME"` changes the defaults; what the file says itself counts more.

| preset | what it is | defaults |
|---|---|---|
{presets}
"""
RESUMED = "A run that goes on (`--resume`) may have other values of {}; all others are those it began with."
SERVER = "The file of a reward server has a section of its own beside its `[[rewards]]`:"


def tables() -> str:
    """The end of the page, from its heading on."""
    parts = [HEADING + INTRO.format(presets="\n".join(presets()))]
    parts += [f"### `[{name}]`\n\n{table(section)}" for name, section in SECTIONS.items()]
    parts += [f"### `[[rewards]]`\n\n{table(RewardSettings)}", RESUMED.format(", ".join(may_change())) + "\n"]
    parts += [f"### `[server]`\n\n{SERVER}\n\n{table(ServerSettings)}"]
    return "\n".join(parts)


def presets() -> Iterator[str]:
    for name, preset in PRESETS.items():
        sections = preset.defaults.items()
        values = [f"`{section}.{key}` {value}" for section, its in sections for key, value in its.items()]
        yield f"| `{name}` | {preset.help} | {', '.join(values)} |"


def table(section: type[Section]) -> str:
    return "".join(["| setting | default | range | meaning |\n|---|---|---|---|\n", *rows(section)])


def rows(section: type[Section]) -> Iterator[str]:
    for f in fields(section):
        setting = described(section, f.name)
        yield f"| `{section.section}.{f.name}` | {default(f)} | {setting.range} | {setting.help} |\n"


def default(f: Field) -> str:
    """As TOML has it, but for texts, which stand without quotes."""
    if f.default_factory is not MISSING:
        return "{}"
    match f.default:
        case bool():
            return str(f.default).lower()
        case float():
            return f"{f.default:g}"
        case tuple():
            return str(list(f.default))
        case "":
            return "empty"
    return "needed" if f.default is MISSING else str(f.default)


def may_change() -> list[str]:
    return [
        f"`{name}.{f.name}`"
        for name, section in SECTIONS.items()
        for f in fields(section)
        if described(section, f.name).may_change
    ]


def written_anew(page: str) -> str:
    return page[: page.index(HEADING)] + tables()


if __name__ == "__main__":
    PAGE.write_text(written_anew(PAGE.read_text("utf-8")), "utf-8")
