"""What is imported is declared; what is declared is no package that overwrites another one."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# ComfyUI brings them, and torch for CUDA its Triton
HOSTS = {"torch", "triton", "comfy", "comfy_api", "comfyui_version", "folder_paths", "server"}
CALLED = {"PIL": "pillow", "huggingface_hub": "huggingface-hub"}  # a package by another name than its import


def imported(*folders: str) -> set[str]:
    """Packages that are not Python's own, as they are called where they are installed."""
    names = set()
    for path in (path for folder in folders for path in ROOT.joinpath(folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module)
    packages = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - HOSTS
    return {CALLED.get(name, name) for name in packages}


def declared() -> set[str]:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = "".join(re.findall(r"^(?:ocr|gguf|nf4|experiments) = (\[.*?\])$", project, re.MULTILINE | re.DOTALL))
    lines = (ROOT / "requirements.txt").read_text("utf-8") + extras
    return set(re.findall(r'^ *"?([\w-]+)[>=]', lines, re.MULTILINE))


def test_what_is_imported_is_declared():
    found = imported("trainer", "nodes")
    assert {"diffusers", "pillow", "tqdm"} <= found  # at the top, by another name, within a function
    assert found - declared() == set()


def at_import(source: str) -> set[str]:
    """Packages that come with a module: imported outside of every function, and not for types alone."""
    names, todo = set(), list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not for_types and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += ast.iter_child_nodes(node)
    return names


def test_what_is_optional_is_imported_within_functions():
    optional = {"rapidocr", "onnxruntime", "gguf", "bitsandbytes", "hpsv2", "matplotlib"}
    paths = [path for folder in ("trainer", "nodes") for path in ROOT.joinpath(folder).rglob("*.py")]
    assert [path.name for path in paths if at_import(path.read_text("utf-8")) & optional] == []
    assert at_import("try:\n    import gguf\nexcept ImportError: ...\ndef f():\n    import torch") == {"gguf"}


def test_nothing_offers_itself_as_a_package_called_trainer():
    """pip would put `trainer` over another distribution's; setuptools refuses a folder with several packages."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert "packages" not in project
    assert "build-system" not in project
