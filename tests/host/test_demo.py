"""The demo through ComfyUI's queue trains what the engine alone trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from comfy_install import ROOT
from safetensors.torch import load_file

SHORT = ["--json", "--set", "run.iterations=2", "--set", "sampling.steps=4"]


def call(*words: object, locks: Path) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(locks)}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr  # 1: two iterations need not raise the reward
    return json.loads(done.stdout)


def test_the_demo_through_comfyui_equals_the_headless_one_bit_for_bit(comfyui, tmp_path):
    through = call("tests/host/demo.py", *SHORT, "--base", tmp_path / "base", locks=tmp_path)
    headless = call("-m", "trainer", "demo", *SHORT, "--folder", tmp_path / "run", locks=tmp_path)
    assert through["rewards"] == headless["rewards"]
    assert through["rewards"]["tiny-scene-clip"]["difference"] != 0
    ours, theirs = (load_file(report["lora"]) for report in (headless, through))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert Path(through["lora"]) == tmp_path / "base/models/loras/demo.safetensors"
    assert Path(through["grid"]).is_file()
