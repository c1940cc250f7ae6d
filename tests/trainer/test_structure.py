"""The rules of the architecture, held by walking the imports; each rule is shown a violation that it must find."""

import ast
import importlib.util
import re
from itertools import pairwise, product
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "trainer"
HOST = {"comfy", "comfy_api", "folder_paths", "server", "nodes", "execution"}
# a module imports from its own floor and from those above it in this list; "." are the files of trainer/ itself
FLOORS = [
    {".", "tiny"},
    {"stages"},
    {"models/files"},
    {"models/storage"},
    {"models/lora"},
    {"models/conditioning"},
    {"models/family"},
    {"models/flux1"},
    {"models/families"},
    {"pictures", "rewards", "diagnosis"},
    {"settings"},
    {"store", "objectives"},
    {"engine"},
    {"planning", "history"},
    {"training"},
    {"board", "report", "reward_server"},
    {"experiments"},
    {"benchmarks"},
    {"cli"},
]
STAGES = {f"stages.{path.stem}" for path in (TRAINER / "stages").glob("*.py")} - {"stages.__init__"}
JOINED = {"stages.rollout", "stages.anchors", "stages.surrogate", "stages.update"}

SQL = re.compile(
    r"\b(SELECT|PRAGMA|VALUES|INSERT (OR|INTO)|DELETE FROM|UPDATE \w+ SET|(CREATE|ALTER|DROP) (TABLE|VIEW|INDEX))\b"
    r"|\brun\.sqlite\b"
)

Imports = dict[str, set[str]]  # module -> what it imports; the trainer's by their path in it, as "stages.noise"


def imported(path: Path, root: Path) -> set[str]:
    package = path.relative_to(root).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            found.add(name)
            # `from . import x`, `from ..stages import x`: x may be a module
            found |= {f"{name}.{alias.name}".lstrip(".") for alias in node.names if is_module(root, name, alias.name)}
    return found - {""}


def is_module(root: Path, package: str, name: str) -> bool:
    folder = root.joinpath(*package.split(".")) if package else root
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def modules(root: Path) -> Imports:
    paths = [path for path in root.rglob("*.py") if "__pycache__" not in path.parts]
    return {".".join(path.relative_to(root).with_suffix("").parts): imported(path, root) for path in paths}


def folder_of(module: str) -> str:
    """Its room: "stages", "models/files", ...; "." for a file of trainer/ itself, "" for what is not ours."""
    parts = module.removesuffix(".__init__").split(".")
    names = {name for floor in FLOORS for name in floor}
    for depth in (2, 1):
        if "/".join(parts[:depth]) in names:
            return "/".join(parts[:depth])
    return "." if (TRAINER / f"{parts[0]}.py").is_file() else ""


def floor_of(module: str) -> int | None:
    folder = folder_of(module)
    return next((n for n, floor in enumerate(FLOORS) if folder in floor), None)


def knows_the_host(all_imports: Imports) -> list[str]:
    return [module for module, names in all_imports.items() if {name.split(".")[0] for name in names} & HOST]


def goes_upwards(all_imports: Imports) -> list[str]:
    found = []
    for module, names in all_imports.items():
        here = floor_of(module)
        if module != "__main__" and here is not None:
            above = [name for name in names if (there := floor_of(name)) is not None and there > here]
            found += [f"{module} imports {name}" for name in above]
    return found


def goes_sideways(all_imports: Imports) -> list[str]:
    """Folders of one floor that import each other."""
    found = []
    for module, names in all_imports.items():
        here = folder_of(module)
        for name in names:
            other = folder_of(name)
            if here != other and floor_of(module) == floor_of(name) is not None and "." not in (here, other):
                found.append(f"{module} imports {name}")
    return found


def joins_stages(all_imports: Imports) -> set[str]:
    """Modules that join the stages that make the update, beside these themselves and the objectives, made of them."""
    outside = {m: names for m, names in all_imports.items() if m.split(".")[0] not in ("stages", "objectives")}
    return {m for m, names in outside.items() if len(names & JOINED) > 1}


def cycles(all_imports: Imports) -> list[str]:
    """Modules that import themselves through others, imports for types included."""
    found = []
    for start in all_imports:
        seen, todo = set(), list(all_imports[start] & all_imports.keys())
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += all_imports[module] & all_imports.keys()
        if start in seen:
            found.append(start)
    return found


def touches_the_database(texts: dict[str, str]) -> list[str]:
    """Modules outside the store that open the run's database, name its file, or speak SQL to it."""
    found = []
    for module, text in texts.items():
        nodes = list(ast.walk(ast.parse(text)))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        written = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        if "sqlite3" in names or any(SQL.search(string) for string in written):
            found.append(module)
    return [module for module in found if not module.startswith("trainer.store.")]


TREE = modules(TRAINER)
NODES = modules(ROOT / "nodes")
TEXTS = {
    f"{root}.{'.'.join(path.relative_to(ROOT / root).with_suffix('').parts)}": path.read_text("utf-8")
    for root in ("trainer", "nodes")
    for path in (ROOT / root).rglob("*.py")
}
JOINERS = {"engine.grpo", "training.self_test"}


def planted(module: str, *names: str) -> Imports:
    return {**TREE, module: TREE.get(module, set()) | set(names)}


def test_every_folder_has_its_floor():
    folders = {str(p.parent.relative_to(TRAINER)) for p in TRAINER.rglob("__init__.py")} - {"."}
    files = {str(p.relative_to(TRAINER).with_suffix("")) for p in (TRAINER / "models").glob("*.py")} - {
        "models/__init__"
    }
    covered = {name for floor in FLOORS for name in floor}
    assert {f for f in folders if not any(f == c or f.startswith(f"{c}/") for c in covered)} == {"models"}
    assert covered - folders == {".", *files}


def test_the_trainer_knows_nothing_of_the_host():
    assert knows_the_host(TREE) == []
    assert knows_the_host(planted("stages.noise", "comfy.utils")) == ["stages.noise"]
    assert knows_the_host(planted("training.run", "nodes")) == ["training.run"]


def test_imports_go_down():
    assert goes_upwards(TREE) == []
    assert goes_sideways(TREE) == []


def test_every_stage_that_looks_up_is_found():
    for stage in STAGES:
        for above in ("settings.config", "training.loop", "models.flux1.policy", "store.writer", "rewards"):
            assert goes_upwards(planted(stage, above)) == [f"{stage} imports {above}"]


def test_every_folder_that_looks_up_is_found():
    for here, above in pairwise(FLOORS):
        for folder, other in product(here, above):
            module = "files" if folder == "." else f"{folder.replace('/', '.')}.planted"
            name = f"{other.replace('/', '.')}.planted"
            assert f"{module} imports {name}" in goes_upwards(planted(module, name))


def test_folders_of_one_floor_that_know_each_other_are_found():
    assert goes_sideways(planted("rewards.base", "diagnosis.record")) == ["rewards.base imports diagnosis.record"]


def test_only_the_iteration_joins_the_stages_and_what_tests_it_beforehand():
    assert joins_stages(TREE) == JOINERS
    assert joins_stages(planted("engine.setup", "stages.rollout", "stages.update")) == {*JOINERS, "engine.setup"}


def test_no_module_imports_itself_by_way_of_others():
    assert cycles(TREE) == []
    assert cycles(NODES) == []
    assert cycles(planted("stages.rollout", "stages.update")) == ["stages.rollout", "stages.update"]


def calls(path: Path, name: str) -> list[ast.Call]:
    tree = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node for node in tree if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def puzzles(text: str) -> list[int]:
    """Lines with a conditional expression as a statement, or inside another."""
    found = []
    for node in ast.walk(ast.parse(text)):
        inside = isinstance(node, ast.IfExp) and any(
            isinstance(n, ast.IfExp) for n in (node.test, node.body, node.orelse)
        )
        if inside or (isinstance(node, ast.Expr) and isinstance(node.value, ast.IfExp)):
            found.append(node.lineno)
    return found


def test_no_line_is_a_puzzle():
    assert {module: lines for module, text in TEXTS.items() if (lines := puzzles(text))} == {}
    assert puzzles("a() if b else c()\nx = 1 if b else 2 if c else 3\n") == [1, 2]


def test_nothing_is_pickled_or_loaded_with_code_in_it():
    loose = []
    for path in TRAINER.rglob("*.py"):
        if "pickle" in imported(path, TRAINER) and "from pickle import UnpicklingError\n" not in path.read_text(
            "utf-8"
        ):
            loose.append(path)
        loads = [{k.arg: ast.unparse(k.value) for k in call.keywords} for call in calls(path, "torch.load")]
        loose += [path for keywords in loads if keywords.get("weights_only") != "True"]
    assert not loose


def test_the_test_command_runs_every_folder_of_tests(monkeypatch):
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    steps = []
    monkeypatch.setattr(dev, "run", lambda step, **env: steps.append(step) or 0)
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    dev.test([])
    assert {word for word in steps[-1] if word.startswith("tests/")} == folders
    dev.test(["--quick"])
    assert {word for word in steps[-1] if word.startswith("tests/")} == folders - {"tests/host", "tests/web"}


def test_the_database_has_one_owner():
    assert touches_the_database(TEXTS) == []


def test_of_the_nodes_only_what_records_steps_opens_a_store_to_write():
    assert {module for module, names in NODES.items() if "trainer.store.writer" in names} == {"recording"}


def test_another_owner_of_the_database_is_found():
    for line in (
        "import sqlite3",
        "from sqlite3 import connect",
        'query = "SELECT 1"',
        'query = f"SELECT {columns} FROM log"',
        'query = "INSERT INTO log VALUES (?)"',
        'query = "DELETE FROM log"',
        'query = "PRAGMA user_version"',
        'path = folder / "run.sqlite"',
    ):
        for module in ("trainer.history.runs", "nodes.pictures"):
            assert touches_the_database({module: f"{TEXTS[module]}\n{line}\n"}) == [module]
        assert touches_the_database({"trainer.store.reader": line}) == []
