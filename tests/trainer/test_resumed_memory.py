"""A resumed run holds its tensors, and no file: Windows neither replaces nor removes a file that is mapped."""

import pytest
import torch
from mapped_files import MAPS, mapped

from trainer.events import IterationDone
from trainer.settings.config_file import load_config
from trainer.training.checkpoint import checkpoints, optimizer_tensors
from trainer.training.checkpoint import load as load_checkpoint
from trainer.training.run import CHECKPOINTS, LORA, restore, start_run


@pytest.fixture
def config(config_file):
    def config(iterations: int):
        return load_config(config_file(), [f"run.iterations={iterations}", "run.save_every=1"])

    return config


@pytest.mark.skipif(not MAPS.exists(), reason="what is mapped is read from /proc")
def test_no_file_of_a_resumed_run_is_mapped_while_it_saves_again_and_again(config, tmp_path, flux_dev):
    start_run(config(1))
    kept, seen = [], []

    def look(event):
        if isinstance(event, IterationDone):
            kept.extend(mapped(tmp_path / "run" / CHECKPOINTS) + mapped(tmp_path / "run" / LORA))
            kept.extend(mapped(flux_dev))
            seen.append(event.iteration)

    start_run(config(5), resume=True, listeners=[look])
    assert seen == [1, 2, 3, 4]
    assert kept == []
    assert [path.name for path in checkpoints(tmp_path / "run" / CHECKPOINTS)] == ["000004", "000005"]


def test_what_a_checkpoint_restores_owns_its_memory(config, tmp_path):
    _, setup = start_run(config(2))
    checkpoint = load_checkpoint(tmp_path / "run" / CHECKPOINTS)
    state = restore(setup, checkpoint)
    restored = optimizer_tensors(state.optimizer, setup.lora)
    assert {name.rpartition("/")[2] for name in restored} >= {"step", "exp_avg", "exp_avg_sq"}
    of_file = {t.untyped_storage().data_ptr() for t in (*checkpoint.optimizer.values(), *checkpoint.average.values())}
    for name, tensor in {**restored, **state.average.shadow}.items():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, name
        assert tensor.untyped_storage().data_ptr() not in of_file, name
    assert all(torch.equal(tensor, checkpoint.optimizer[name]) for name, tensor in restored.items())
