"""What is imported is declared; what is declared is no package that overwrites another one."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOSTS = {"torch", "comfy", "comfy_api", "comfyui_version", "folder_paths", "server"}  # ComfyUI brings them
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
    extras = "".join(re.findall(r"^(?:ocr|gguf|nf4) = (\[.*?\])$", project, re.MULTILINE | re.DOTALL))
    lines = (ROOT / "requirements.txt").read_text("utf-8") + extras
    return set(re.findall(r'^ *"?([\w-]+)[>=]', lines, re.MULTILINE))


def test_what_is_imported_is_declared():
    found = imported("trainer", "nodes")
    assert {"diffusers", "pillow", "tqdm"} <= found  # at the top, by another name, within a function
    assert found - declared() == set()


def test_nothing_offers_itself_as_a_package_called_trainer():
    """pip would put `trainer` over another distribution's; setuptools refuses a folder with several packages."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert "packages" not in project
    assert "build-system" not in project
