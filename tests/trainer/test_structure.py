"""The rules of the architecture, held by walking the imports."""

import ast
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


def test_only_the_iteration_joins_the_stages():
    joiners = {
        path.stem
        for path in TRAINER.glob("*.py")
        if path.stem not in STAGES and len(imports(path) & {"rollout", "anchors", "surrogate", "update"}) > 1
    }
    assert joiners == {"iteration"}


def calls(path: Path, name: str) -> list[str]:
    """The calls of `name`, as source."""
    source = path.read_text("utf-8")
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [ast.unparse(node) for node in found if ast.unparse(node.func) == name]


def test_nothing_is_pickled():
    """But for the name of the error that a refused checkpoint raises; and what is loaded can only be tensors."""
    for path in TRAINER.rglob("*.py"):
        text = path.read_text("utf-8")
        assert "import pickle" not in text
        assert text.count("pickle") == text.count("from pickle import UnpicklingError\n")
        assert text.count("torch.load(") == len(calls(path, "torch.load"))
        assert all("weights_only=True" in call for call in calls(path, "torch.load") if "build" not in path.parts)
