"""Small random models of the real classes, shared by the tests, and how the tests are spread over processes.

What takes long to import is imported by what needs it: the process that spreads the tests reads this file too.
"""

import gc
import os
import signal
import tempfile
from contextlib import nullcontext
from functools import partial
from multiprocessing.util import get_temp_dir
from pathlib import Path

import pytest
from small_config import write_config

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported


def pytest_configure():
    """SIGTERM ends the tests as Ctrl-C does: whatever they started ends with them."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """How `dev.py test` spreads the tests over processes."""
    from spreading import BesideComfyUI

    return BesideComfyUI(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="module", autouse=True)
def little_to_collect():
    """What is imported by now stays: Python's collector, which a run calls by itself, need not look at it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_locks():
    """Locks lie in the folder for temporary files: tests that run side by side do not wait for one device."""
    get_temp_dir()  # multiprocessing's own, which it removes after this one
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own, pytest.MonkeyPatch.context() as patch:
        Path(own).chmod(0o755)  # as open to read as the system's
        patch.setenv("TMPDIR", own)  # of child processes
        patch.setattr(tempfile, "tempdir", own)
        yield


@pytest.fixture(scope="session")
def flux_dev(tmp_path_factory) -> Path:
    """With a guidance embedding, like FLUX.1-dev."""
    from small_flux import build_flux

    return build_flux(tmp_path_factory.mktemp("models") / "flux-dev", guidance_embeds=True)


@pytest.fixture(scope="session")
def flux_schnell(tmp_path_factory) -> Path:
    """Without one, like FLUX.1-schnell."""
    from small_flux import build_flux

    return build_flux(tmp_path_factory.mktemp("models") / "flux-schnell", guidance_embeds=False)


@pytest.fixture(scope="session")
def flux_fill(flux_dev, tmp_path_factory) -> Path:
    """flux_dev as FLUX.1-Fill."""
    from small_flux import build_fill

    return build_fill(flux_dev, tmp_path_factory.mktemp("fill") / "flux-fill")


def pytest_generate_tests(metafunc):
    """Tests marked `also_on_card` that use a device run on the CPU and on the card made of the CPU (tests/card)."""
    if "device" in metafunc.fixturenames and metafunc.definition.get_closest_marker("also_on_card"):
        metafunc.parametrize("device", ["cpu", pytest.param("card", marks=pytest.mark.card)], indirect=True)


@pytest.fixture
def device(request):
    """Where a run computes: the CPU, but see `pytest_generate_tests`."""
    import card

    name = getattr(request, "param", "cpu")
    card.reset()
    with card.pinning() if name == "card" else nullcontext():
        yield name
    assert card.races == []


@pytest.fixture
def config_file(flux_dev, tmp_path, device):
    """Writes a TOML file of a short run on the random FLUX; keyword arguments replace whole sections."""
    return partial(write_config, tmp_path, flux_dev, device)
