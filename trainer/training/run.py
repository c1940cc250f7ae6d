"""A run on disk: a folder with its settings, checkpoints, store and LoRA; starting it and going on with it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ..device import pick_device, tensor_cores, training_on
from ..diagnosis.watch import Watch
from ..engine.state import Setup, State, new_state
from ..errors import UserError
from ..events import FAILED, Change, Ending, Event, Finished, Listener, Saved
from ..faults import in_words, is_fault, told
from ..lock import exclusive
from ..models.lora.attach import set_weights
from ..models.lora.export import export_lora, file_tensors
from ..settings.config import Config
from ..stages.update import GradientHistory
from ..store.reader import reading
from ..store.writer import RunStore, open_store
from .checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from .checkpoint import load as load_checkpoint
from .checkpoint import save as save_checkpoint
from .control import Control
from .identity import identified
from .loop import train
from .lora_header import lora_metadata
from .prepare import prepare
from .run_folder import CHECKPOINTS, LORA, check_run
from .safety import Reserve, made, mend, reserved, size_of


def start_run(
    config: Config,
    *,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    control: Control | None = None,
    load: Callable[[Config], Setup] = prepare,
) -> tuple[Ending, Setup]:
    """Train in `config.run.folder`; returns what ended the run, and the setup with the LoRA as it is exported.

    `control` is that of `loop.train`. `load` makes the setup, once the folder is known to fit.

    Raises:
        RunError, RewardError, CheckpointError: see `check_run`.
        Busy: another process is training in the folder, or on the device.
        UserError: what a disk or a file did, in words.
    """
    folder, device = Path(config.run.folder), pick_device(config.model.device)
    taken = f"{folder} is being trained by another process: wait for it, or use another folder"
    check_run(config, resume)
    config = identified(config)
    with told(folder), made(folder) as begin, exclusive(str(folder.absolute()), taken), training_on(device):
        check_run(config, resume)  # again, as another process may just have left it
        checkpoint = load_checkpoint(folder / CHECKPOINTS)
        mend(folder)
        with open_store(folder, config.run.tiles_every, config.run.keep_tiles) as store:
            setup = load(config)
            state = restore(setup, checkpoint) if checkpoint else new_state(setup)
            begin()
            if not resume:
                store.set_info(changes=[], started=None)
            with reserved(folder / CHECKPOINTS, size_of(setup, state)) as reserve:
                ending = _train(setup, state, store, listeners, control or Control(), reserve)
            if state.average.decay:
                set_weights(setup.lora, state.average.shadow)
            return ending, setup


def _train(
    setup: Setup,
    state: State,
    store: RunStore,
    listeners: Sequence[Listener],
    control: Control,
    reserve: Reserve,
) -> Ending:
    config, folder = setup.config, Path(setup.config.run.folder)
    store.rewind(state.iteration)
    store.set_info(settings=config.to_dict())
    # the store knows what was changed after the checkpoint as well
    state.changes = store.changes() or state.changes
    with reading(folder) as earlier:
        watch = Watch(config.to_dict(), earlier, control.stop)

    everyone: tuple[Listener, ...] = (store, watch, *listeners)

    def on_event(event: Event) -> None:
        for listener in everyone:
            listener(event)

    def write(state: State) -> Path:
        save_checkpoint(folder / CHECKPOINTS, snapshot(setup, state))
        return export(setup, state, folder / LORA)

    def save(state: State) -> None:
        on_event(Saved(state.iteration, str(write(state))))

    def rescue(state: State) -> None:
        reserve.give_back()
        write(state)

    try:
        with tensor_cores(setup.policy.device):
            return train(setup, state, on_event=on_event, save=save, rescue=rescue, control=control)
    except BaseException as error:
        for listener in everyone:
            with suppress(Exception):  # what ends the run is to be seen, not what comes of it
                listener(Finished(state.iteration, Ending(FAILED, in_one_line(error))))
        raise


def in_one_line(error: BaseException) -> str:
    """A user's mistake by its own line, a machine's fault in words, anything else with its kind."""
    if is_fault(error):
        return in_words(error)
    lines = str(error).strip().splitlines()
    if isinstance(error, UserError) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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
        gradients=asdict(state.gradients),
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
    state.gradients = GradientHistory(**checkpoint.gradients)
    return state


def export(setup: Setup, state: State, path: Path) -> Path:
    """The LoRA as a file for diffusers and ComfyUI: the average if one is kept, or the weights themselves."""
    config, settings = setup.config, setup.config.lora
    weights = state.average.shadow if config.optimizer.ema_decay else setup.lora
    tensors = file_tensors(
        weights,
        settings.alpha,
        variant=settings.variant,
        names=setup.policy.layer_names if settings.format == "kohya" else None,
        network=setup.policy.network,
    )
    changes = [change.to_dict() for change in state.changes if change.iteration < state.iteration]
    return export_lora(path, tensors, lora_metadata(config, state.iteration, changes))
