"""What waits on the host while the device computes."""

import torch

from trainer.engine.drawing import conditioning_of
from trainer.settings.config_file import load_config
from trainer.training.prepare import prepare


def test_all_prompts_conditioning_waits_on_the_host_and_the_policy_takes_what_it_needs(config_file):
    overrides = ["model.device='card'", "evaluation.prompts=['a grey cat']"]
    setup = prepare(load_config(config_file(), overrides))
    for conditioning in (setup.conditioning, setup.evaluation, conditioning_of(setup, [1, 0])):
        assert conditioning.tensors["embeddings"].device.type == conditioning.tensors["pooled"].device.type == "cpu"
    x = torch.randn(2, setup.geometry.tokens, 64, device="card")
    velocity = setup.policy.velocity(conditioning_of(setup, [1, 0]), setup.geometry)
    assert velocity(x, x.new_full((2,), 0.5), torch.tensor([0, 1], device="card")).isfinite().all()
