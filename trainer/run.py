"""A run on disk: a folder with its settings, checkpoints, store and LoRA; starting it and going on with it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import __version__
from .checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from .checkpoint import load as load_checkpoint
from .checkpoint import save as save_checkpoint
from .config import Config, ModelSettings, RewardSettings
from .control import Control
from .device import tensor_cores, without_spilling
from .diagnosis.watch import Watch
from .errors import UserError
from .events import Change, Event, Finished, Listener, Saved
from .lock import exclusive
from .loop import train
from .metrics import RunStore, open_store
from .models.lora import set_weights
from .models.lora_export import export_lora, file_tensors
from .rewards import check_prompts
from .setup import prepare
from .state import Setup, State, new_state

CHECKPOINTS = "checkpoint"
LORA = "lora.safetensors"
# settings that may change when a run goes on: they do not alter what an iteration computes
FREE = ("folder", "iterations", "save_every", "tiles_every", "offload_rewards", "base_every", "stop_on")
# how the model's weights are kept may change: a run goes on on another machine, with other memory
KEPT = ("memory", "offload", "checkpointing")
APART = ("evaluation",)  # whole sections like that
# how a reward is reached may change too: a server moves
REACH = ("url", "token_env", "timeout", "retries")


class RunError(UserError):
    """A run folder that cannot be started or continued, with the remedy in one line."""


def start_run(
    config: Config,
    *,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool | str] = lambda: False,
    control: Control | None = None,
    load: Callable[[Config], Setup] = prepare,
) -> tuple[str, Setup]:
    """Train in `config.run.folder`; returns why the run ended, and the setup with the trained LoRA.

    `should_stop` and `control` are those of `loop.train`. `load` makes the setup, once the folder is known to fit.

    Raises:
        RunError: the folder holds a run already (and not `resume`), or another one than `config` describes.
        RewardError: a reward cannot score one of the prompts.
        Busy: another process is training in the folder.
    """
    check_prompts((r.kind for r in config.rewards), (*config.prompts, *config.evaluation.prompts))
    folder = Path(config.run.folder)
    with exclusive(
        str(folder.absolute()), f"{folder} is being trained by another process: wait for it, or use another folder"
    ):
        checkpoint = find_checkpoint(config, resume)
        setup = load(config)
        state = restore(setup, checkpoint) if checkpoint else new_state(setup)
        with open_store(folder, config.run.tiles_every) as store:
            if not resume:
                store.set_info(changes=[], started=None)
            return _train(setup, state, store, listeners, should_stop, control), setup


def _train(
    setup: Setup,
    state: State,
    store: RunStore,
    listeners: Sequence[Listener],
    should_stop: Callable[[], bool | str],
    control: Control | None,
) -> str:
    config, folder = setup.config, Path(setup.config.run.folder)
    store.rewind(state.iteration)
    store.set_info(settings=config.to_dict())
    # the store knows what was changed after the checkpoint as well
    state.changes = store.changes() or state.changes
    watch = Watch(config.to_dict(), store)

    def on_event(event: Event) -> None:
        for listener in (store, watch, *listeners):
            listener(event)

    def save(state: State) -> None:
        save_checkpoint(folder / CHECKPOINTS, snapshot(setup, state))
        on_event(Saved(state.iteration, str(export(setup, state, folder / LORA))))

    def why_stop() -> bool | str:
        return should_stop() or watch.reason

    try:
        with tensor_cores(setup.policy.device), without_spilling(setup.policy.device):
            return train(setup, state, on_event=on_event, save=save, should_stop=why_stop, control=control)
    except BaseException as error:
        for listener in (store, *listeners):
            with suppress(Exception):  # what ends the run is to be seen, not what comes of it
                listener(Finished(state.iteration, f"failed: {in_one_line(error)}"))
        raise


def in_one_line(error: BaseException) -> str:
    """A user's mistake by its own line, anything else with its kind."""
    lines = str(error).strip().splitlines()
    if isinstance(error, UserError) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def find_checkpoint(config: Config, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from; checks that the folder's state fits the wish, before anything is loaded."""
    folder = Path(config.run.folder)
    checkpoint = load_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        return None
    if not resume:
        raise RunError(
            f"{folder} already holds a run of {checkpoint.iteration} iterations: use --resume, or another folder"
        )
    changed = differences(completed(checkpoint.settings), json.loads(json.dumps(config.to_dict())))
    if changed:
        raise RunError(
            f"{folder} was trained with other settings ({'; '.join(changed)}): undo them, or use another folder"
        )
    return checkpoint


def completed(stored: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older version stored, with the defaults of what it did not know yet."""
    defaults = json.loads(json.dumps(Config(ModelSettings(""), ("",), (RewardSettings("none"),)).to_dict()))
    return {
        name: {**default, **stored[name]} if isinstance(default, dict) and name in stored else stored.get(name, default)
        for name, default in defaults.items()
    }


def differences(old: object, new: object, name: str = "") -> list[str]:
    """What differs between two settings trees, but for what is free to change, as 'grpo.clip was 0.2, is 0.3'."""
    if isinstance(old, dict) and isinstance(new, dict):
        free = {"": APART, "run": FREE, "model": KEPT}.get(name, REACH if name.endswith(".options") else ())
        keys = [k for k in (*old, *(k for k in new if k not in old)) if k not in free]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{name}.{k}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{name}.{i}")]
    return [] if old == new else [f"{name} was {old!r}, is {new!r}"]


def snapshot(setup: Setup, state: State) -> Checkpoint:
    return Checkpoint(
        iteration=state.iteration,
        lora=dict(setup.lora),
        average=state.average.shadow,
        optimizer=optimizer_tensors(state.optimizer, setup.lora),
        counters={
            "updates": state.updates,
            "skipped_in_row": state.skipped_in_row,
            "average_updates": state.average.updates,
        },
        settings=setup.config.to_dict(),
        changes=[change.to_dict() for change in state.changes],
    )


def restore(setup: Setup, checkpoint: Checkpoint) -> State:
    """The state of a checkpoint, with its weights put into `setup`."""
    set_weights(setup.lora, checkpoint.lora)
    state = new_state(setup)
    if state.average.decay:
        set_weights(state.average.shadow, checkpoint.average)
    restore_optimizer(state.optimizer, setup.lora, checkpoint.optimizer)
    state.iteration = checkpoint.iteration
    state.updates = checkpoint.counters["updates"]
    state.average.updates = checkpoint.counters["average_updates"]
    # a run that gave up gets a new chance when it is resumed
    state.skipped_in_row = 0
    state.changes = [Change(**change) for change in checkpoint.changes]
    return state


def export(setup: Setup, state: State, path: Path) -> Path:
    """The LoRA as a file for diffusers and ComfyUI: the average where one is kept, or the weights themselves."""
    config, settings = setup.config, setup.config.lora
    weights = state.average.shadow if config.optimizer.ema_decay else setup.lora
    tensors = file_tensors(
        weights,
        settings.alpha,
        variant=settings.variant,
        layout=settings.format,
        transformer=setup.policy.transformer,
    )
    metadata = lora_metadata(config, state.iteration)
    changes = [change.to_dict() for change in state.changes if change.iteration < state.iteration]
    return export_lora(path, tensors, {**metadata, **({"changes": changes} if changes else {})})


def lora_metadata(config: Config, iteration: int) -> dict[str, object]:
    settings = config.to_dict()
    return {
        "software": f"neighbor-grpo {__version__}",
        "base_model": config.model.path,
        "prompts_sha256": hashlib.sha256("\n".join(config.prompts).encode()).hexdigest(),
        "rewards": settings["rewards"],
        "settings": {k: v for k, v in settings.items() if k not in ("prompts", "rewards")},
        "iteration": iteration,
    }
