"""One resumable training loop for every part of the embedded model."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

LOG_EVERY = 50
SAVE_EVERY = 250


def fit(
    name: str,
    module: nn.Module,
    loss: Callable[[np.random.Generator, int], torch.Tensor],
    folder: Path,
    *,
    steps: int,
    lr: float,
    warmup: int = 100,
    ema_decay: float = 0.998,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> float:
    """Train `module` in place with AdamW and a cosine schedule, and leave the averaged (EMA) weights in it.

    `loss` gets a generator that depends on the step alone, so a resumed run sees the same data, and the step. Progress
    is kept in `folder/name.pt`; a finished stage is loaded, not trained again. Returns the mean loss of the last
    logged steps.
    """
    path = folder / f"{name}.pt"
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    first, recent = 0, float("nan")
    if path.exists():
        state = torch.load(path, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average, first, recent = state["average"], state["step"], state["loss"]

    module.train()
    losses: list[float] = []
    started = time.perf_counter()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step, steps, warmup)
        torch.manual_seed(seed * 1_000_003 + step)
        value = loss(np.random.default_rng([seed, step]), step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, current in module.state_dict().items():
                if current.dtype.is_floating_point:
                    average[key].lerp_(current, 1 - decay)
        losses.append(value.item())
        if (step + 1) % LOG_EVERY == 0:
            recent = float(np.mean(losses[-LOG_EVERY:]))
            seconds = (time.perf_counter() - started) / len(losses)
            print(f"{name} {step + 1}/{steps} loss {recent:.4f} {seconds:.2f} s/step", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            save(path, {**state, "average": average, "step": step + 1, "loss": recent})
    module.load_state_dict(average)
    module.eval()
    return recent


def schedule(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine down to 2 % of the learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def save(path: Path, state: dict) -> None:
    """Write aside, then rename: a killed build never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)
