"""What the demo says in the end: base model and LoRA, compared on prompts and seeds that were not trained on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import tiny
from ..engine.setup import drawn_in, encode
from ..engine.state import Setup
from ..pictures.sheets import side_by_side
from ..settings.config import Config
from ..training.evaluate import UNSEEN, Difference, both, compare
from .output import print_json, say

SEEDS = 4  # pictures of each tested prompt
STEPS = 20  # of their solver, as ComfyUI's sampler has: not those that the LoRA was trained with
SHOWN = 21  # prompts that have a picture on the grid
BEFORE, AFTER = "before training", "after training"
CHECK = "tiny-scene"  # the reward that says which are right
RISE = 3.0  # standard errors that the trained reward has to rise by


def conclude(
    setup: Setup, tested: list[str], folder: Path, lora: Path, seconds: float, *, complete: bool, as_json: bool
) -> int:
    """Compare, print, store `folder/report.json` and the grid; returns the exit code: 0 if the reward rose."""
    rewards = test(setup, tested, folder / "before_after.png")
    rose = complete and all(rewards[name].rise >= RISE for name in setup.config.weights)
    report = {
        "rewards": {name: r.to_dict() for name, r in rewards.items()},
        "seconds": round(seconds, 1),
        "pictures": len(tested) * SEEDS,
        "run": str(folder),
        "grid": str(folder / "before_after.png"),
        "lora": str(lora),
        "rose": rose,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if as_json:
        print_json(report)
        return 0 if rose else 1
    say(f"\ntrained in {seconds:.0f} s; {report['pictures']} pictures of {len(tested)} prompts not trained on:\n")
    say(summary(setup.config, rewards))
    say(f"\nrun:   {report['run']}\ngrid:  {report['grid']}\nLoRA:  {report['lora']}")
    if not rose:
        say(f"the trained reward did not rise by {RISE:g} standard errors" + ("" if complete else ": the run gave up"))
    return 0 if rose else 1


def test(setup: Setup, tested: list[str], grid: Path) -> dict[str, Difference]:
    """Compare base model and LoRA on SEEDS pictures of each prompt; some of them go to `grid`."""
    config = setup.config
    prompts = [p for p in tested for _ in range(SEEDS)]
    seeds = range(UNSEEN, UNSEEN + len(prompts))
    setup = replace(setup, conditioning=encode(config, tested), config=replace(config, prompts=tuple(tested)))
    before, after = both(drawn_in(setup, STEPS), prompts, seeds)
    shown = [n for n in range(len(tested)) if n % 4 in (0, 3)][:SHOWN]  # of every number and place
    first = [n * SEEDS for n in shown]
    pictures = {"training data": originals()[shown], BEFORE: before.images[first], AFTER: after.images[first]}
    drawn = {BEFORE: before, AFTER: after}
    right = {name: (samples.scores[CHECK][first] == 1).tolist() for name, samples in drawn.items()}
    counts = [f"{sum(right[name])} of {len(shown)} {name}" for name in drawn]
    title = f"Green: number, colour and place are as asked, {', '.join(counts)}. None of these was trained on."
    side_by_side(pictures, [tested[n] for n in shown], columns=3, right=right, title=title).save(grid)
    return {name: compare(before.scores[name], after.scores[name]) for name in before.scores}


def originals() -> Tensor:
    """What the model learnt from, one picture for each tested prompt, [N, 3, H, W] in [0, 1]."""
    with Image.open(tiny.SCENE_ORIGINALS) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGB")))
    return pixels.unflatten(0, (-1, tiny.SIZE)).permute(0, 3, 1, 2) / 255


def summary(config: Config, rewards: dict[str, Difference]) -> str:
    """The table for a person: one row a reward, the rise in standard errors."""
    held_out = {r.label for r in config.rewards if r.held_out}
    lines = [f"{'reward':<30}{'before':>9}{'after':>9}{'difference':>12}{'+-':>9}{'rise':>9}"]
    for name, r in rewards.items():
        label = f"{name} ({'held out' if name in held_out else 'trained'})"
        numbers = f"{r.before:9.4f}{r.after:9.4f}{r.difference:+12.4f}{r.standard_error:9.4f}{r.rise:6.1f} SE"
        lines.append(f"{label:<30}{numbers}")
    return "\n".join(lines)
