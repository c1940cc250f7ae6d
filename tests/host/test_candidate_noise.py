"""A candidate of a training, drawn again from its noise by ComfyUI's own sampler."""

import graphs
import pytest
import tiny_files
import torch
from comfy_server import ExecutionError
from safetensors.torch import load_file
from seen_latents import shown

from trainer import tiny
from trainer.engine.drawing import Clock
from trainer.engine.grpo import sample_candidates
from trainer.engine.state import Setup
from trainer.settings.config_file import parse
from trainer.training.evaluate import sample
from trainer.training.prepare import prepare

PROMPT = "a red apple on a white background"
STEPS, GROUP, STRENGTH = 5, 4, 0.4


@pytest.fixture(scope="module")
def models(server):
    tiny_files.write(server.base / "models")


def graph(seed: str, candidate: int, prefix: str = "candidate") -> dict:
    """ComfyUI's own loaders, scheduler and sampler, on our noise."""
    clip = {"clip_name1": "tiny_clip.safetensors", "clip_name2": "tiny_t5.safetensors", "type": "flux"}
    links = {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["euler", 0], "sigmas": ["sigmas", 0]}
    nodes = {
        "unet": ("UNETLoader", {"unet_name": "tiny_flux.safetensors", "weight_dtype": "default"}),
        "clip": ("DualCLIPLoader", clip),
        "text": ("CLIPTextEncode", {"text": PROMPT, "clip": ["clip", 0]}),
        "latent": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "guider": ("BasicGuider", {"model": ["unet", 0], "conditioning": ["text", 0]}),
        "euler": ("KSamplerSelect", {"sampler_name": "euler"}),
        "sigmas": ("BasicScheduler", {"model": ["unet", 0], "scheduler": "simple", "steps": STEPS, "denoise": 1.0}),
        "sampler": ("SamplerCustomAdvanced", links | {"latent_image": ["latent", 0]}),
        "save": ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": prefix}),
    }
    built = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    inputs = {"seed": seed, "strength": STRENGTH, "group_size": GROUP, "candidate": candidate}
    return built | {"noise": graphs.node("CandidateNoise", **inputs)}


def drawn(server, seed: int, candidate: int) -> torch.Tensor:
    """[16, 8, 8], in the transformer's units."""
    prefix = f"candidate-{seed}-{candidate}"
    server.wait(server.queue(graph(str(seed), candidate, prefix)))
    (file,) = (server.base / "output").glob(f"{prefix}*.latent")
    return (load_file(file)["latent_tensor"][0] - tiny_files.SHIFT) * tiny_files.SCALE


@pytest.fixture(scope="module")
def setup() -> Setup:
    """The same model here."""
    settings = {
        "model": {"path": "embedded", "device": "cpu", "text_tokens": tiny.TEXT_TOKENS},
        "sampling": {"width": 64, "height": 64, "steps": STEPS, "solver": "euler", "shift": 1.0},
        "grpo": {"group_size": GROUP, "strength": STRENGTH, "anchors": 1},
        "prompts": [PROMPT],
        "rewards": [{"kind": "colourfulness"}],
    }
    return prepare(parse(settings))


def test_a_sampler_draws_the_candidate_of_a_run_again(server, models, setup):
    candidates = sample_candidates(setup, 3, [], Clock(setup.policy.device))
    ours = setup.geometry.unpack(candidates.trajectories.x_0)
    (seed,) = candidates.seeds
    assert seed > 2**53  # more than JavaScript's numbers hold
    assert (ours[0] - ours[-1]).abs().max() > 0.1
    for candidate in (0, GROUP - 1):
        torch.testing.assert_close(drawn(server, seed, candidate), ours[candidate], rtol=0, atol=1e-3)


def test_minus_one_is_the_base_noise(server, models, setup):
    looking, latents = shown(setup)
    sample(looking, setup.conditioning, [PROMPT], [7])
    torch.testing.assert_close(drawn(server, 7, -1), latents[0][0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("seed", "candidate", "message"),
    [
        ("1e9", 0, "seed '1e9' must be a whole number from 0 to 18446744073709551615"),
        (str(2**64), 0, "must be a whole number"),
        ("-1", 0, "must be a whole number"),
        ("5", GROUP, f"candidate {GROUP} must be below group_size = {GROUP}"),
    ],
)
def test_what_is_no_candidate_is_refused(server, models, seed, candidate, message):
    with pytest.raises(ExecutionError) as error:
        server.wait(server.queue(graph(seed, candidate)))
    assert message in str(error.value)
