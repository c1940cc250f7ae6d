"""Whoever the umask lets read and write a run's files can: a group that trains together, a web server, a backup."""

import os
import stat

import pytest
import toy_runs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")


@pytest.fixture
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077], indirect=True, ids=oct)
def test_all_files_of_a_run_and_what_is_made_of_it_have_the_umasks_mode(tmp_path, umask):
    place = tmp_path / "place"
    config = toy_runs.write_config(place, iterations=2, save_every=1)
    config.write_text(f'{config.read_text()}[evaluation]\nprompts = ["0 0"]\n')
    assert toy_runs.train(config, place / "run").code == 0
    assert toy_runs.command("export", place / "run", "-o", place / "report.html").code == 0
    found = {path.relative_to(place).as_posix(): path.stat().st_mode for path in place.rglob("*")}
    names = {"report.html", "run/lora.safetensors", "run/run.sqlite"}
    names |= {"run/checkpoint/000002/optimizer.safetensors", "run/checkpoint/000002/state.json"}
    assert found.keys() >= names
    wrong = {
        name: oct(stat.S_IMODE(mode))
        for name, mode in found.items()
        if stat.S_IMODE(mode) != (0o777 if stat.S_ISDIR(mode) else 0o666) & ~umask
    }
    assert wrong == {}
