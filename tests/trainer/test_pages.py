"""README, CONTRIBUTING and docs/: what they name is there, and defaults are what they say."""

import re
import shlex
import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path

import make_settings
import pytest
from test_structure import FLOORS

from trainer.__main__ import parse
from trainer.reward_server.config import ServerSettings
from trainer.rewards import KINDS
from trainer.settings.config import Config
from trainer.settings.config_file import SECTIONS, RewardSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]
SUFFIXES = r"\.(?:py|md|toml|json|sqlite|safetensors|png|txt)"

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def rows(page: Path, words: str) -> list[list[str]]:
    """The cells of the table whose first line holds `words`."""
    lines = iter(text_of(page).splitlines())
    next(line for line in lines if line.startswith("|") and words in line)
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


@each_page
def test_what_is_linked_is_there(page):
    links = re.findall(r"\]\(([^)#]+)\)", text_of(page))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@each_page
def test_every_command_has_its_options(page, capsys):
    text = text_of(page).replace("\n", " ") if page.name == "results.md" else text_of(page)
    commands = re.findall(r"python -m (trainer [^`\n#>]*)", text)
    for command in commands:
        words = shlex.split(command)[1:]
        if words[-1:] != ["CONFIG.toml"] and words:
            parse(words)  # exits if there is no such option
    for name in re.findall(r"python dev\.py (\w+)", text):
        assert f'"{name}"' in text_of(ROOT / "dev.py")
    assert capsys.readouterr().err == ""


@each_page
def test_files_of_the_tests_are_there(page):
    named = re.findall(rf"\btests/[\w/]+(?:{SUFFIXES})?", text_of(page))
    assert [name for name in named if not (ROOT / name).exists() and name != "tests/test_noise.py"] == []


@each_page
def test_every_setting_exists(page):
    for section, name in re.findall(r"`(\w+)\.(\w+)(?: ?=[^`]*)?`", text_of(page)):
        if section in SECTIONS and name not in ("py", "sqlite", "safetensors"):
            assert name in {field.name for field in fields(SECTIONS[section])}, f"{section}.{name}"


def test_keys_of_the_toml_examples_exist():
    blocks = re.findall(r"```toml\n(.*?)```", text_of(ROOT / "docs/configuration.md"), re.S)
    blocks += re.findall(r"```toml\n(.*?)```", text_of(ROOT / "docs/rewards.md"), re.S)
    assert len(blocks) == 3
    for block in blocks:
        for name, values in tomllib.loads(re.sub(r"^# (\w+ =)", r"\1", block, flags=re.M)).items():
            if name == "rewards":
                for reward in values:
                    assert set(reward) <= {field.name for field in fields(RewardSettings)}
                    assert reward["kind"] in KINDS
            elif name in SECTIONS:
                assert set(values) <= {field.name for field in fields(SECTIONS[name])}
            else:
                assert name in {field.name for field in fields(Config)}


def shown(field: Field) -> str:
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if field.default_factory is not MISSING:
        return "{}"
    words = {MISSING: "needed", "": "empty", (): "[]"}
    return words.get(field.default) or str(field.default).removesuffix(".0")


def test_the_settings_tables_have_every_setting_with_its_default():
    lines = re.findall(r"^\| `(\w+)\.(\w+)` \| (.*?) \|", text_of(make_settings.PAGE), re.M)
    sections = {**SECTIONS, "rewards": RewardSettings, "server": ServerSettings}
    assert lines == [(name, f.name, shown(f)) for name, section in sections.items() for f in fields(section)]


def test_the_settings_tables_are_made_from_the_settings():
    page = text_of(make_settings.PAGE)
    assert page == make_settings.written_anew(page), "run `python tests/trainer/make_settings.py`"


def test_the_table_of_rewards_is_complete():
    named = [name for cells in rows(ROOT / "docs/rewards.md", "kind | what it rewards") for name in quoted(cells[0])]
    assert sorted(named) == sorted(KINDS)


def test_the_map_has_every_module():
    named = set()
    for folder, modules, _ in rows(ROOT / "CONTRIBUTING.md", "in `trainer/`"):
        place = "" if quoted(folder) == ["."] else quoted(folder)[0]
        named |= {f"{place}{name}" for name in quoted(modules)}
    paths = [path.relative_to(ROOT / "trainer") for path in (ROOT / "trainer").rglob("*.py")]
    real = {path.with_suffix("").as_posix() for path in paths if not path.name.startswith("__")}
    inner = {name for name in real if name.startswith("benchmarks/gpu/")}
    assert named == (real - inner) | {"benchmarks/gpu/"}


def test_the_map_goes_from_the_ground_up():
    named = []
    for folder, modules, _ in rows(ROOT / "CONTRIBUTING.md", "in `trainer/`"):
        place = quoted(folder)[0].rstrip("/")
        named += [f"{place}/{name}" for name in quoted(modules)] if place == "models" else [place]
    assert [next(n for n, floor in enumerate(FLOORS) if name in floor) for name in named] == sorted(
        next(n for n, floor in enumerate(FLOORS) if name in floor) for name in named
    )
    assert {*named} == {name for floor in FLOORS for name in floor}


def test_the_readme_shows_every_folder():
    shown = re.findall(r"(?:^ +|  )([a-z_]+)/", text_of(ROOT / "README.md").partition("## The code")[2], re.MULTILINE)
    folders = [path for base in (ROOT, ROOT / "trainer") for path in base.iterdir() if path.is_dir()]
    real = {path.name for path in folders if path.name[0] not in "._" and any(path.rglob("*.*"))}
    assert sorted(shown) == sorted(real - {"runs", "build", "dist", "venv"})  # which git ignores


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150
