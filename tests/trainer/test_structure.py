"""The rules of the architecture, held by walking the imports."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "trainer"
STAGES = "noise schedule solvers rollout decode advantages anchors surrogate update".split()
HOST = {"comfy", "comfy_api", "folder_paths", "server", "nodes", "execution"}


def imports(path: Path) -> set[str]:
    """Imported modules; those of the project by their path below trainer, as 'config' or 'rewards.base'."""
    package = path.relative_to(TRAINER).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            found |= {name} if node.module else {".".join([*base, alias.name]) for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(TRAINER.rglob("*.py")), ids=lambda p: str(p.relative_to(TRAINER)))
def test_the_trainer_knows_nothing_of_the_host(path):
    assert not {name.split(".")[0] for name in imports(path)} & HOST


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_no_settings_and_no_loop(stage):
    forbidden = {"config", "config_file", "iteration", "loop", "run", "setup", "checkpoint", "metrics"}
    assert not imports(TRAINER / f"{stage}.py") & forbidden


def test_only_the_iteration_joins_the_stages_and_what_tests_it_beforehand():
    joiners = {
        path.stem
        for path in TRAINER.glob("*.py")
        if path.stem not in STAGES and len(imports(path) & {"rollout", "anchors", "surrogate", "update"}) > 1
    }
    assert joiners == {"iteration", "self_test"}


def calls(path: Path, name: str) -> list[ast.Call]:
    tree = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node for node in tree if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def test_nothing_is_pickled_or_loaded_with_code_in_it():
    loose = []
    for path in TRAINER.rglob("*.py"):
        if "pickle" in imports(path) and "from pickle import UnpicklingError\n" not in path.read_text("utf-8"):
            loose.append(path)
        if "build" not in path.parts:
            loads = [{k.arg: ast.unparse(k.value) for k in call.keywords} for call in calls(path, "torch.load")]
            loose += [path for keywords in loads if keywords.get("weights_only") != "True"]
    assert not loose


def test_the_test_command_runs_every_folder_of_tests():
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert sorted([*dev.WITH_COMFYUI, *dev.OTHERS]) == sorted(folders)
