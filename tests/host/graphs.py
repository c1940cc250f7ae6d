"""Training graphs in ComfyUI's API format, small enough for a CPU."""

from typing import Any

LINK = list  # [node id, output number]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": f"NeighborGRPO{kind}", "inputs": inputs}


def parts(
    *, prompts: str = "spider on a red background\nbutterfly on a blue background", **changes: Any
) -> dict[str, Any]:
    """Policy (1), prompts (2), neighborhood (3) and reward (4) of the embedded model."""
    policy = {
        "model": "embedded", "folder": "", "rank": 8, "alpha": 8.0, "targets": "all-linear", "start_from": "none",
        "guidance": 3.5, "precision": "auto", "seed": 0,
    }  # fmt: skip
    hood = {"seed": 0, "strength": 0.3, "group_size": 6, "width": 64, "height": 64}
    policy |= {k: v for k, v in changes.items() if k in policy and k != "seed"}
    hood |= {k: v for k, v in changes.items() if k in hood}
    return {
        "1": node("LoadPolicy", **policy),
        "2": node("PromptSet", policy=["1", 0], text=prompts, file=""),
        "3": node("NoiseNeighborhood", **hood),
        "4": node("ClipReward", model="embedded", scale="cosine"),
    }


def train(*, name: str = "run", **changes: Any) -> dict[str, Any]:
    """The whole loop (5), and the LoRA into models/loras (6)."""
    settings = {
        "iterations": 2, "learning_rate": 1e-3, "prompts_per_iteration": 2, "solver": "dpm++2m", "steps": 4,
        "micro_batch": 12, "run_name": name, "resume": False, "save_every": 1, "preview_every": 1, "early_stop": 0,
    }  # fmt: skip
    settings |= {k: v for k, v in changes.items() if k in settings}
    links = {"policy": ["1", 0], "prompts": ["2", 0], "neighborhood": ["3", 0], "reward": ["4", 0]}
    return parts(**changes) | {
        "5": node("Train", **links, **settings),
        "6": node("SaveLora", lora=["5", 0], name=name, overwrite=False),
    }


def steps(**changes: Any) -> dict[str, Any]:
    """One rollout (5), its scores (6) and one update (7)."""
    return parts(**changes) | {
        "5": node(
            "Rollout", policy=["1", 0], prompts=["2", 0], neighborhood=["3", 0], solver="dpm++2m", steps=4,
            micro_batch=12, prompts_per_step=2,
        ),
        "6": node("ScoreImages", trajectories=["5", 0], images=["5", 1], reward=["4", 0]),
        "7": node("Step", trajectories=["5", 0], scores=["6", 0], learning_rate=1e-3),
    }  # fmt: skip


def with_settings(graph: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The graph with a GRPO Settings node (30) on its Train or Step."""
    values = {
        "anchors": 2, "trained_steps": 2, "quasi_norm": 0.8, "clip": 0.2, "updates_per_rollout": 1, "kl_weight": 0.0,
        "reward_normalisation": "advantage", "temperature_mode": "scale-free", "temperature": 1.0,
        "max_grad_ratio": 4.0, "weight_decay": 0.0, "warmup": 0, "ema_decay": 0.0,
    }  # fmt: skip
    user = "5" if graph["5"]["class_type"] == "NeighborGRPOTrain" else "7"
    inputs = {**graph[user]["inputs"], "settings": ["30", 0]}
    return graph | {"30": node("Settings", **(values | settings)), user: {**graph[user], "inputs": inputs}}


def with_reward(model: str) -> dict[str, Any]:
    """A training by a CLIP model of models/rewards."""
    return train() | {"4": node("ClipReward", model=model, scale="cosine")}
