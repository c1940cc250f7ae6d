"""torch.compile of the blocks: the same numbers where it works, a warning and the plain model where it does not."""

from functools import partial

import pytest
import torch

from trainer.engine.drawing import Clock
from trainer.engine.grpo import collect, improve, pairs_of
from trainer.engine.state import new_state
from trainer.errors import ConfigError
from trainer.models.storage import compiling
from trainer.models.storage.compiling import compile_blocks, wants_compiled
from trainer.settings.config_file import load_config
from trainer.settings.model import ModelSettings
from trainer.training.prepare import prepare


def test_a_machine_that_cannot_compile_goes_on_without(flux_dev, config_file, monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("Failed to find\n a working C++ compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    setup = prepare(load_config(config_file(), ["model.compile=true"]))
    assert "torch.compile does not work here (Failed to find a working C++ compiler)" in caplog.text
    assert all(module._compiled_call_impl is None for module in setup.policy.network.modules())


def test_compiled_blocks_give_the_same_iteration(config_file, monkeypatch):
    """By the backend that needs no compiler: it traces forward and backward like the others."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    results = []
    for compiled in ("false", "true"):
        setup = prepare(load_config(config_file(), [f"model.compile={compiled}"]))
        blocks = [m for m in setup.policy.network.modules() if m._compiled_call_impl is not None]
        assert len(blocks) == (2 if compiled == "true" else 0)
        group = collect(setup, 0, Clock(setup.policy.device))
        metrics, _ = improve(setup, new_state(setup), group, pairs_of(setup, group, 0))
        results.append((group.scores["colourfulness"], metrics["grad_norm"], metrics["ratio_error"]))
    plain, fast = results
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-4, atol=1e-4)
    assert fast[1] == pytest.approx(plain[1], rel=1e-2)
    assert fast[2] < 1e-4


def test_what_works_says_so_and_how_long_it_will_take(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(torch, "compile", lambda function: function)
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    assert compile_blocks(module, "cpu")
    assert "the first iteration takes about 120 s more (estimate)" in caplog.text


@pytest.mark.parametrize("triton", [True, False])
def test_auto_compiles_what_is_large_and_resident_where_triton_is(monkeypatch, triton):
    monkeypatch.setattr(compiling, "kernels_by_triton", lambda device: triton and device == "cuda")
    assert wants_compiled("auto", "cuda", offload=0, small=False) is triton
    assert not wants_compiled("auto", "cpu", offload=0, small=False)
    assert not wants_compiled("auto", "cuda", offload=0.1, small=False)
    assert not wants_compiled("auto", "cuda", offload=0, small=True)


def test_true_and_false_ask_nobody_but_the_offload(caplog):
    assert wants_compiled(True, "cpu", offload=0, small=True)
    assert not wants_compiled(False, "cuda", offload=0, small=False)
    assert not caplog.text
    assert not wants_compiled(True, "cuda", offload=0.5, small=False)
    assert "model.compile = true: left out" in caplog.text


def test_no_other_word_is_taken():
    assert ModelSettings("embedded", offload=0.5).compile == "auto"
    with pytest.raises(ConfigError, match=r"model.compile = 'fast': must be auto, true or false"):
        ModelSettings("embedded", compile="fast")


def test_a_config_says_auto_or_true(config_file):
    assert load_config(config_file(), ["model.compile=auto"]).model.compile == "auto"
    assert load_config(config_file(), ["model.compile=true"]).model.compile is True
