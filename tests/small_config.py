"""The TOML file of a short run on the small random FLUX."""

from pathlib import Path


def write_config(folder: Path, flux: Path, device: str, name: str = "config.toml", **sections: str) -> Path:
    """Write `folder/name`, of a run in `folder/run`; `sections` replace whole sections, "head" what is above them."""
    model = f"path = {str(flux)!r}\ndevice = {device!r}\ntext_tokens = 12"
    if device == "card":  # which would take bf16
        model += "\ndtype = 'float32'"
    tables = {
        "model": model,
        "lora": "rank = 4\nalpha = 8",
        "sampling": "width = 64\nheight = 64\nsteps = 4",
        "grpo": "group_size = 4\nanchors = 2\ntrained_steps = 2\nprompts_per_iteration = 2",
        "optimizer": "learning_rate = 1e-3\nema_decay = 0.5\nwarmup = 8",
        "run": f"folder = {str(folder / 'run')!r}\niterations = 3\nmicro_batch = 4\nsave_every = 2",
        **sections,
    }
    head = tables.pop("head", 'prompts = ["a red apple", "a blue fish", "a green tree"]')
    rewards = tables.pop("rewards", '[[rewards]]\nkind = "colourfulness"')
    body = "\n\n".join(f"[{key}]\n{value}" for key, value in tables.items())
    path = folder / name
    path.write_text(f"{head}\n\n{body}\n\n{rewards}\n", "utf-8")
    return path
