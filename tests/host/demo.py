"""The demo as a user of ComfyUI has it: the first workflow, through the queue of a real ComfyUI.

usage: python dev.py demo [--json]        (--headless trains with the engine alone and needs no ComfyUI)

The workflow gets the demo's prompts and settings; the LoRA it leaves in models/loras is compared with the base model on
prompts and seeds that it was not trained on. Everything is kept in .comfy/user, which `python dev.py comfy` shows.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy_install
import workflow
from comfy_install import HOME, ROOT, HostError
from comfy_server import PACK, ComfyServer
from prepare import say

TEMPLATE = ROOT / "workflows" / "1-Train-on-the-embedded-model.json"
NAME = "demo"
HOW = ("anchors", "trained_steps", "pairing", "step_choice", "distance", "hold")
PROGRESS = "Neighbor GRPO: "


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as run.iterations=20"
    )
    parser.add_argument("--base", type=Path, default=HOME / "user", help="ComfyUI's models, output and settings")
    arguments = parser.parse_args(argv)
    try:
        folder = comfy_install.install(say)
    except HostError as problem:
        say(f"{problem}; `python dev.py demo --headless` does without ComfyUI")
        return 1
    try:
        return train_and_compare(folder, arguments)
    except HostError as problem:
        say(str(problem))
        return 1
    except KeyboardInterrupt:
        return 130


def train_and_compare(comfyui: Path, arguments: argparse.Namespace) -> int:
    from trainer.cli.demo import CONFIG, prompts
    from trainer.cli.libraries import apart
    from trainer.settings.config_file import load_config

    trained, tested = prompts()
    config = load_config(CONFIG, [*arguments.set, f"prompts={trained!r}"])
    say(f"starting {comfyui.name}")
    with ComfyServer(comfyui, PACK, base=arguments.base) as server:
        graph = workflow.load(TEMPLATE, server.get("/object_info"))
        say(f"queueing {TEMPLATE.stem}: {len(trained)} prompts, {config.run.iterations} iterations")
        started = time.monotonic()
        outputs = follow(server, server.queue(with_settings(graph, config)))
        seconds = time.monotonic() - started
    run = Path(texts(graph, outputs, "Train").partition(": ")[2])
    lora = Path(texts(graph, outputs, "SaveLora"))
    with apart():
        from trainer.cli.demo_report import conclude
        from trainer.training.prepare import prepare

        setup = prepare(replace(config, lora=replace(config.lora, start=str(lora))))
        return conclude(setup, tested, run, lora, seconds, complete=True, as_json=arguments.json)


def with_settings(graph: dict[str, Any], config: Any) -> dict[str, Any]:
    """The workflow with the demo's prompts and numbers in its widgets."""
    grpo, sampling = config.grpo, config.sampling  # all others are the nodes' defaults
    changes = {
        "PromptSet": {"text": "\n".join(config.prompts)},
        "LoadPolicy": {"rank": config.lora.rank, "alpha": config.lora.alpha, "targets": config.lora.targets},
        "NoiseNeighborhood": {
            "seed": config.run.seed, "strength": grpo.strength, "group_size": grpo.group_size,
            "width": sampling.width, "height": sampling.height,
        },
        "Train": {
            "iterations": config.run.iterations, "learning_rate": config.optimizer.learning_rate,
            "prompts_per_iteration": grpo.prompts_per_iteration, "solver": sampling.solver, "steps": sampling.steps,
            "micro_batch": config.run.micro_batch, "run_name": NAME,
        },
        "Settings": {name: getattr(grpo, name) for name in HOW},
        "SaveLora": {"name": NAME},
    }  # fmt: skip
    for name, values in changes.items():
        inputs = find(graph, name)[1]["inputs"]
        unknown = values.keys() - inputs.keys()
        assert not unknown, f"{TEMPLATE.name}: the {name} node has no {unknown}"
        inputs |= values
    return graph


def find(graph: dict[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    return next((key, node) for key, node in graph.items() if node["class_type"] == f"NeighborGRPO{name}")


def texts(graph: dict[str, Any], outputs: dict[str, Any], name: str) -> str:
    return outputs[find(graph, name)[0]]["text"][0]


def follow(server: ComfyServer, prompt_id: str) -> dict[str, Any]:
    """Show the training's log lines, one over the other, until the prompt is done; its outputs."""
    shown = ""
    while not server.get(f"/history/{prompt_id}"):
        lines = [line for line in server.log().splitlines() if line.startswith(PROGRESS)]
        if lines and lines[-1] != shown:
            shown = lines[-1]
            print(f"\r{shown:<90}", end="", file=sys.stderr, flush=True)
        time.sleep(0.3)
    print(file=sys.stderr)
    return server.wait(prompt_id)["outputs"]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
