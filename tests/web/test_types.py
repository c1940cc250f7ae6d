"""The panel's JavaScript has no type errors."""

import json
import shutil
from pathlib import Path

import pytest
import typescript
from needed import required

HERE = Path(__file__).resolve().parent
MISTAKE = 'import { app } from "../../scripts/app.js";\napp.registerExtension({ nam: "x" });\n'


@pytest.fixture(autouse=True, scope="module")
def compiler() -> None:
    required(typescript.find)


def test_the_compiler_finds_nothing():
    assert typescript.check(HERE / "tsconfig.json") == []


def test_the_compiler_would_find_a_mistake(tmp_path):
    settings = json.loads((HERE / "tsconfig.json").read_text("utf-8"))
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings | {"include": ["*.d.ts", "*.js"]}))
    shutil.copy(HERE / "comfyui.d.ts", tmp_path)
    (tmp_path / "main.js").write_text(MISTAKE)
    (found,) = typescript.check(tmp_path / "tsconfig.json")
    assert "'nam' does not exist in type 'Extension'" in found
