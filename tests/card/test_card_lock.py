"""Two trainings do not share a device, whoever began them."""

import pytest

from trainer.device import training_on
from trainer.lock import Busy
from trainer.settings.config_file import load_config
from trainer.training.run import start_run


def test_a_training_without_comfyui_waits_for_nobody_and_says_who_has_the_device(config_file):
    config = load_config(config_file(), ["model.device='card'"])
    with training_on("card:0"), pytest.raises(Busy, match="another training is running on card"):
        start_run(config, load=lambda _: pytest.fail("nothing is to be loaded"))
