"""Steps by hand, recorded as a run: the panel shows them as it shows a training."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import service
from .run_folders import run_folder

if TYPE_CHECKING:
    from ..trainer.engine.grpo import Group
    from ..trainer.engine.state import Setup
    from ..trainer.stages.anchors import Pairs

STATE = "step by step"  # neither at work nor over


@dataclass(frozen=True)
class Recording:
    """Where a policy's steps are kept."""

    name: str  # that was asked for
    folder: Path


def record(
    kept: Recording | None,
    name: str,
    setup: Setup,
    group: Group,
    pairs: Pairs,
    metrics: dict[str, float],
    step: int,
) -> Recording:
    """Write step number `step` (from 0) of a policy to where its steps are `kept`, or to a folder of its own.

    A policy that is recorded under another name than before gets another folder. The step has been made: a disk that
    is full is told, and fails nothing.
    """
    from ..trainer.board.messages import of_iteration
    from ..trainer.store.database import StoreError
    from ..trainer.store.writer import open_store
    from ..trainer.training.report import report

    if kept is None or kept.name != name:
        kept = Recording(name, run_folder(name, resume=False))
    folder = kept.folder
    metrics = {**metrics, "strength": setup.config.grpo.strength}
    event = report(setup, step, group, pairs.anchors(*group.advantages.shape), metrics, None)
    try:
        with open_store(folder) as store:
            began = store.info("started") or time.time()
            store.set_info(settings=setup.config.to_dict(), state=STATE, iterations=step + 1, started=began)
            store(event)
    except (OSError, StoreError) as error:
        logging.warning(f"Neighbor GRPO: the step was made, but could not be recorded in {folder}: {error}")
        return kept
    service.send(of_iteration(folder.name, step, metrics))
    return kept
