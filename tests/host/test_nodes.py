"""Training graphs in a real ComfyUI: what they leave, when they run again, what they say when something is wrong."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import graphs
import pytest
import tiny_files
from comfy_install import ROOT
from patience import until
from PIL import Image
from queued import fails, pictures, run
from safetensors import safe_open

FLUX = "diffusers.models.transformers.transformer_flux.FluxTransformer2DModel"
PARAMETER = "torch.nn.parameter.Parameter"


def rewards(folder) -> list[float]:
    with sqlite3.connect(folder / "run.sqlite") as database:
        query = "SELECT value FROM metrics WHERE name = 'reward/tiny-clip' ORDER BY iteration"
        return [value for (value,) in database.execute(query)]


def test_the_train_node_raises_the_reward_and_the_lora_lands_in_models_loras(server):
    shown = run(server, graphs.train(name="rises", iterations=24, group_size=8, steps=6, save_every=12))
    folder = server.base / "output/neighbor_grpo/rises"
    assert shown["5"] == f"complete: {folder}"
    curve = rewards(folder)
    assert len(curve) == 24
    assert sum(curve[-8:]) / 8 > sum(curve[:8]) / 8 + 0.01
    lora = server.base / "models/loras/rises.safetensors"
    assert shown["6"] == str(lora)
    with safe_open(lora, "pt") as file:
        assert file.metadata()["iteration"] == "24"
        names = list(file.keys())
    assert sum(name.endswith(".alpha") for name in names) == sum("lora_A" in name for name in names) > 0


def test_a_graph_that_did_not_change_does_not_train_again(server):
    graph = graphs.train(name="once")
    assert "5" in executed(server.wait(server.queue(graph)))
    assert executed(server.wait(server.queue(graph))) == []
    assert not (server.base / "output/neighbor_grpo/once-2").exists()


def test_a_training_keeps_the_pictures_that_it_is_told_to(server):
    graph = graphs.train(name="thinned", iterations=4)
    graph["5"]["inputs"]["keep_tiles"] = "newest 2"
    run(server, graph)
    kept = (server.base / "output/neighbor_grpo/thinned/tiles").iterdir()
    assert sorted(path.name for path in kept) == ["000002", "000003"]
    graph["5"]["inputs"]["keep_tiles"] = "some"
    assert "run.keep_tiles = 'some': must be auto, all, or iterations such as" in fails(server, graph)


def test_a_file_that_exists_is_kept_unless_asked(server):
    for expected in ("kept", "kept-2"):
        graph = graphs.train(name="kept", iterations=1)
        graph["6"]["inputs"]["name"] = "kept"
        graph["3"]["inputs"]["seed"] = len(expected)
        assert run(server, graph)["6"].endswith(f"/{expected}.safetensors")
    graph["6"]["inputs"]["overwrite"] = True
    assert run(server, graph)["6"].endswith("/kept.safetensors")


def test_every_queue_run_is_a_step_and_only_a_moved_policy_is_drawn_again(server):
    graph = graphs.steps(rank=5)  # a policy of its own
    assert [run(server, graph)["7"].split()[:2] for _ in range(3)] == [["step", "1"], ["step", "2"], ["step", "3"]]
    looking = {name: node for name, node in graph.items() if name != "7"}
    looking["8"] = {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}}
    first = server.wait(server.queue(looking))
    again = server.wait(server.queue(looking))
    assert set(executed(first)) > {"8"}
    assert executed(again) == []  # nothing has moved


def executed(entry: dict) -> list[str]:
    """Nodes that were run and not taken from the cache."""
    cached = next(d["nodes"] for event, d in entry["status"]["messages"] if event == "execution_cached")
    return [name for name in entry["prompt"][2] if name not in cached]


def test_scores_from_any_numbers_train_and_a_tile_sheet_and_curve_are_drawn(server):
    graph = graphs.steps(rank=6) | {
        "6": graphs.node("ScoresFromValues", trajectories=["5", 0], values=["9", 0], name="mine"),
        "9": {"class_type": "ProbeFloats", "inputs": {"images": ["5", 1]}},
        "10": graphs.node("TileNeighborhood", images=["5", 1], scores=["6", 0], columns=6, edge=96),
        "11": {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}},
    }
    entry = server.wait(server.queue(graph))
    assert "reward/mine" in entry["outputs"]["7"]["text"][0]
    assert entry["outputs"]["11"]["images"]
    train = graphs.train(name="curve") | {
        "12": graphs.node("RewardCurve", run=["5", 1], width=400, height=160),
        "13": {"class_type": "PreviewImage", "inputs": {"images": ["12", 0]}},
    }
    assert server.wait(server.queue(train))["outputs"]["13"]["images"]


def test_the_best_strength_of_a_runs_lora_is_measured_and_the_policy_stays_as_it_is(server):
    """The same numbers as by the command, on the run's folder."""
    train = graphs.train(name="strong", iterations=2) | {
        "14": graphs.node("LoraStrength", policy=["1", 0], run=["5", 1], prompts=["2", 0], reward=["4", 0], pictures=1),
        "15": {"class_type": "PreviewAny", "inputs": {"source": ["14", 0]}},
    }
    texts = server.wait(server.queue(train))["outputs"]
    (table,), (strength,) = texts["14"]["text"], texts["15"]["text"]
    assert table.endswith(f"recommended: {float(strength):g}")
    assert 0.4 <= float(strength) <= 1.2
    assert len(table.splitlines()) == 1 + 9 + 2
    run_folder = server.base / "output/neighbor_grpo/strong"
    prompts = train["2"]["inputs"]["text"].splitlines()
    words = ["strength", str(run_folder), "--pictures", "1", "--json", "--prompts", *prompts]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout)["strengths"]
    for line, row in zip(table.splitlines()[1:10], rows, strict=True):
        told = [float(number) for number in re.findall(r"[-+]?\d+\.\d+", line)]
        assert told[0] == row["strength"]
        assert told[2] == pytest.approx(row["rewards"]["tiny-clip"]["difference"], abs=2e-4)
    train["14"]["inputs"]["pictures"] = 1
    train["2"]["inputs"]["text"] = prompts[0]
    assert "two pictures at least are needed to compare" in fails(server, train)


def test_combined_rewards_keep_their_weights_roles_and_names_and_chain(server):
    off = {f"{what}_{n}": value for n in range(1, 5) for what, value in (("weight", 1.0), ("held_out", False))}
    train = graphs.train(name="combined", iterations=1) | {
        "41": graphs.node("CombineRewards", **off | {"reward_1": ["4", 0], "weight_1": 2.0, "reward_2": ["42", 0]}),
        "42": graphs.node("ColourfulnessReward"),
        "43": graphs.node(
            "CombineRewards",
            **off | {"reward_1": ["41", 0], "weight_1": 0.5, "reward_3": ["4", 0], "held_out_3": True, "weight_3": 3.0},
        ),
    }
    train["5"]["inputs"]["reward"] = ["43", 0]
    run(server, train)
    with sqlite3.connect(server.base / "output/neighbor_grpo/combined/run.sqlite") as database:
        (text,) = database.execute("SELECT value FROM info WHERE key = 'settings'").fetchone()
        logged = {name for (name,) in database.execute("SELECT DISTINCT name FROM metrics WHERE name LIKE 'reward/%'")}
    found = [(r["name"] or r["kind"], r["weight"], r["held_out"]) for r in json.loads(text)["rewards"]]
    assert found == [("tiny-clip", 1.0, False), ("colourfulness", 0.5, False), ("tiny-clip-2", 3.0, True)]
    assert logged == {f"reward/{name}" for name, _, _ in found}


def test_a_bounded_reward_takes_its_bounds_into_the_run_and_crossed_bounds_are_refused(server):
    train = graphs.train(name="bounded", iterations=1)
    train["41"] = graphs.node("BoundReward", reward=["4", 0], lowest=0.25, highest=0.75)
    train["5"]["inputs"]["reward"] = ["41", 0]
    run(server, train)
    with sqlite3.connect(server.base / "output/neighbor_grpo/bounded/run.sqlite") as database:
        (text,) = database.execute("SELECT value FROM info WHERE key = 'settings'").fetchone()
    assert [(r["kind"], r["clip"]) for r in json.loads(text)["rewards"]] == [("tiny-clip", [0.25, 0.75])]
    train["41"]["inputs"]["lowest"] = 0.75
    assert "lowest 0.75 must be below highest 0.75" in fails(server, train)


def test_comfyuis_own_node_applies_the_lora_to_a_model(server):
    tiny_files.write(server.base / "models")
    graph = graphs.train(name="applied") | {
        "20": {"class_type": "UNETLoader", "inputs": {"unet_name": "tiny_flux.safetensors", "weight_dtype": "default"}},
        "21": {
            "class_type": "LoraModelLoader",
            "inputs": {"model": ["20", 0], "lora": ["5", 0], "strength_model": 1.0, "bypass": False},  # since 0.14
        },
        "22": {"class_type": "ProbePatches", "inputs": {"model": ["21", 0]}},
    }
    before = len(server.log())
    patched = int(run(server, graph)["22"])
    assert patched == 2 * 8 + 4 * 2  # weights of the double and single blocks, where queries, keys and values are one
    assert "lora key not loaded" not in server.log()[before:]


def test_a_policy_that_is_loaded_twice_is_in_memory_once(server):
    graph = graphs.steps(rank=7)
    graph["1b"] = {**graph["1"], "inputs": {**graph["1"]["inputs"], "rank": 3}}
    graph["2"]["inputs"]["policy"] = ["1b", 0]
    run(server, graph)
    assert server.get(f"/probe/objects/{FLUX}")["count"] == 1


def test_memory_returns_to_its_level_after_each_training(server):
    levels, parameters = [], []
    for n in range(4):
        run(server, graphs.train(name=f"level-{n}", iterations=3, seed=n))
        seen = server.get(f"/probe/objects/{PARAMETER}")
        levels.append(seen["resident"] / 2**20)
        parameters.append(seen["count"])
    assert levels[3] - levels[1] < 30, levels  # MiB; the first runs fill caches
    # not one LoRA stays behind, though ComfyUI may answer before it has let go of the last prompt
    until(lambda: 0 < server.get(f"/probe/objects/{PARAMETER}")["count"] <= min(parameters), lambda: parameters)


def test_sizes_take_turns_in_a_training_and_from_step_to_step(server):
    graph = graphs.train(name="sizes", iterations=4)
    graph["3"]["inputs"]["more_sizes"] = "96x64, 64x96"
    summary = run(server, graph)["5"]
    tiles = sorted(Path(summary.split(": ", 1)[1]).glob("tiles/*/0-0.webp"))
    assert {Image.open(tile).size for tile in tiles} == {(64, 64), (96, 64), (64, 96)}
    stepped = graphs.steps(rank=9)  # a policy that no other test has moved
    stepped["3"]["inputs"]["more_sizes"] = "96x64"
    stepped["12"] = {"class_type": "SaveImage", "inputs": {"images": ["5", 1], "filename_prefix": "sized"}}
    assert {pictures(server, stepped)[0].shape for _ in range(2)} == {(64, 64, 3), (64, 96, 3)}
    stepped["3"]["inputs"]["more_sizes"] = "96"
    assert "more_sizes has '96': write width x height" in fails(server, stepped)


def test_a_policy_can_be_trained_on_a_device_of_choice(server):
    graph = graphs.train(name="chosen", iterations=1)
    graph["1"]["inputs"]["device"] = "cpu"
    assert run(server, graph)["5"].startswith("complete")
    assert server.get("/object_info")["NeighborGRPOLoadPolicy"]["input"]["optional"]["device"][1]["options"] == [
        "auto",
        "cpu",
    ]


MISTAKES = [
    (graphs.train(group_size=1), "group_size must be at least 2, got 1"),
    (graphs.train(run_name="../up"), "must be the plain name of a folder"),
    (graphs.train(width=40), "width must be a multiple of 16 pixels, got 40: try 32"),
    (graphs.train(folder="/nowhere"), "model '/nowhere': no diffusers folder there"),
    (graphs.train(prompts="# nothing"), "Prompt Set has no prompt: write one a line"),
    (graphs.train(model="missing.safetensors"), "there is no 'missing.safetensors' in models/diffusion_models"),
    (graphs.with_settings(graphs.train(group_size=4), anchors=8), "must be between 1 and grpo.group_size = 4"),
    (graphs.with_settings(graphs.train(steps=2), trained_steps=4), "must be at most sampling.steps = 2"),
    (graphs.with_reward("nobody"), "put its folder (config.json, model.safetensors, ...) into models/rewards"),
]


@pytest.mark.parametrize(("graph", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_a_mistake_is_one_clear_sentence(server, graph, message):
    assert message in fails(server, graph)
    server.wait(server.queue(graphs.train(name="after")))  # the next run works


def test_wrong_files_are_named_with_the_remedy(server):
    models = server.base / "models"
    (models / "diffusion_models/broken.safetensors").write_bytes(b"nothing")
    assert "is not a whole safetensors file" in fails(server, graphs.train(model="broken.safetensors"))
    tiny_files.write(models)
    wrong = tiny_files.NAMES["vae"].split("/")[1]
    (models / "diffusion_models" / wrong).write_bytes((models / tiny_files.NAMES["vae"]).read_bytes())
    assert "is not a FLUX transformer" in fails(server, graphs.train(model=wrong))
    (models / "rewards/broken").mkdir(parents=True)
    (models / "rewards/broken/config.json").write_text("{}")
    assert "is not a CLIPModel folder" in fails(server, graphs.with_reward("broken"))


def test_running_out_of_memory_names_what_to_lower_and_keeps_what_was_saved(server):
    graph = graphs.train(name="memory", iterations=3)
    graph["4m"] = {"class_type": "ProbeOutOfMemory", "inputs": {"reward": ["4", 0]}}
    graph["5"]["inputs"]["reward"] = ["4m", 0]
    message = fails(server, graph)
    assert "out of memory in reward with a single candidate (injected): set run.offload_rewards = true; then" in message
    assert "Saved after 1 iterations" in message
    resumed = graphs.train(name="memory", iterations=3, resume=True)
    assert run(server, resumed)["5"].startswith("complete")
    assert len(rewards(server.base / "output/neighbor_grpo/memory")) == 3


def test_images_and_scores_that_do_not_belong_to_the_rollout_are_refused(server):
    graph = graphs.steps(rank=9)
    half = {"class_type": "ImageFromBatch", "inputs": {"image": ["5", 1], "batch_index": 0, "length": 5}}
    few = graph | {"9": half, "6": graphs.node("ScoreImages", trajectories=["5", 0], images=["9", 0], reward=["4", 0])}
    assert "Score Images got 5 pictures, the rollout has 12: connect its images" in fails(server, few)
    other = graph | {
        "15": {**graph["5"], "inputs": {**graph["5"]["inputs"], "steps": 3}},
        "7": graphs.node("Step", trajectories=["15", 0], scores=["6", 0], learning_rate=1e-3),
    }
    assert "these scores belong to other trajectories" in fails(server, other)


def test_old_trajectories_are_refused(server):
    """Two steps on one rollout are a second update; a third finds it too old."""
    graph = graphs.steps(rank=10)
    step = {"trajectories": ["5", 0], "scores": ["6", 0], "learning_rate": 1e-3}
    graph |= {
        "8": graphs.node("Step", **{**step, "learning_rate": 2e-3}),
        "9": graphs.node("Step", **step, after=["8", 0]),
    }
    graph["9"]["inputs"]["learning_rate"] = 3e-3
    del graph["9"]["inputs"]["after"]
    assert "updates old: queue again, so that the rollout is drawn by the policy of now" in fails(server, graph)
