"""The command line as a user meets it: each command once in a process of its own, then within this one."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import GUARD
from PIL import Image
from talking import said, talking

from trainer.__main__ import main

ROOT = Path(__file__).parents[2]
TALKERS = ("torch", "diffusers", "bitsandbytes")  # the last of them does so if the processor has avx512_bf16


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Starts a command where libraries talk."""
    environment = talking(tmp_path_factory.mktemp("libraries"), *TALKERS)
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start(*words: object) -> subprocess.Popen:
        line = [sys.executable, "-m", "trainer", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, cwd=ROOT, env=environment, **pipes)

    return start


@pytest.fixture(scope="module")
def call(command):
    """Runs one to its end, and finds nothing of the libraries' in what it prints."""

    def run(*words: object) -> subprocess.CompletedProcess:
        process = command(*words)
        out, err = process.communicate(timeout=GUARD)
        assert "talks by" not in out + err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    return run


def test_train_then_sample(call, config_file, flux_dev, tmp_path, capsys):
    path = config_file()
    trained = call("train", path, "--json")
    assert trained.returncode == 0, trained.stderr
    report = json.loads(trained.stdout)
    assert report["reason"] == "complete"
    assert report["last"]["ratio_error"] == 0
    assert Path(report["lora"]).is_file()
    log = Path(report["run"], "log.txt").read_text("utf-8")
    assert [line for name in TALKERS for line in said(name) if line not in log] == []

    def sample(source: str) -> list:
        prompts = ("a red apple", "a \N{SNOWMAN} that was not trained on " + "and on " * 30)
        return [
            "sample",
            source,
            "--prompts",
            *prompts,
            "--seeds",
            1,
            2,
            3,
            "-o",
            tmp_path / "sheet/grid.png",
            "--json",
        ]

    sampled = call(*sample(report["run"]))
    assert sampled.returncode == 0, sampled.stderr
    assert main(list(map(str, sample(report["lora"])))) == 2
    assert "give others: --model PATH (the model it was trained on)" in capsys.readouterr().err
    assert main([*map(str, sample(report["lora"])), "--model", str(flux_dev)]) == 0
    for printed in (sampled.stdout, capsys.readouterr().out):
        assert json.loads(printed)["rewards"]["colourfulness"]["standard_error"] > 0
    with Image.open(tmp_path / "sheet/grid.png") as image:
        assert image.width > image.height > 200


def test_ctrl_c_finishes_the_iteration_saves_says_how_to_resume_and_exits_130(command, config_file):
    path = config_file()
    process = command("train", path, "--set", "run.iterations=100000")
    watchdog = threading.Timer(GUARD, process.kill)
    watchdog.start()
    begun = any("1/100000" in line for line in process.stderr)
    watchdog.cancel()
    assert begun, "the run did not begin"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=GUARD)
    assert process.returncode == 130
    assert "stopped: " in out
    assert f"go on with: python -m trainer train {path}" in out
    assert main(["train", str(path), "--resume", "--set", "run.iterations=1", "--json"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "CONFIG", "--set", "grpo.anchor=3"), "error: 'anchor' is no key of [grpo]: did you mean 'anchors'?"),
        (("train", "CONFIG", "--set", "model.path=nowhere"), "no diffusers folder there"),
        (("train", "none.toml"), "error: none.toml: cannot be read (No such file or directory)"),
        (("sample", "none", "--prompts", "a"), "error: none: no such file; give a run's folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(call, config_file, tmp_path, words, message):
    path = config_file()
    result = call(*(path if word == "CONFIG" else word for word in words))
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "run").exists()


def test_help_names_every_command(call):
    result = call("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("train", "sample", "demo", "bench"))
