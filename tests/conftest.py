"""Small random models of the real classes, shared by the tests."""

import shutil
import tempfile
from contextlib import nullcontext
from multiprocessing.util import get_temp_dir
from pathlib import Path

import card
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from trainer import tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_locks():
    """Locks lie in the folder for temporary files: tests that run side by side do not wait for one device."""
    get_temp_dir()  # multiprocessing's own, which it removes after this one
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own, pytest.MonkeyPatch.context() as patch:
        Path(own).chmod(0o755)  # as open to read as the system's
        patch.setenv("TMPDIR", own)  # of child processes
        patch.setattr(tempfile, "tempdir", own)
        yield


def build_flux(folder: Path, *, guidance_embeds: bool) -> Path:
    """A FLUX of random weights in the layout of FLUX.1-dev's diffusers folder; 64 x 64 pictures take milliseconds."""
    torch.manual_seed(0)
    clip = CLIPTokenizer.from_pretrained(tiny.FLUX / "tokenizer")
    t5 = T5TokenizerFast.from_pretrained(tiny.FLUX / "tokenizer_2")
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds
        ),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=4,
            sample_size=64,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                projection_dim=32,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        ),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=32,
                d_kv=16,
                d_ff=64,
                num_layers=1,
                num_heads=2,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
            )
        ),
        tokenizer_2=t5,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flux_dev(tmp_path_factory) -> Path:
    """With a guidance embedding, like FLUX.1-dev."""
    return build_flux(tmp_path_factory.mktemp("models") / "flux-dev", guidance_embeds=True)


@pytest.fixture(scope="session")
def flux_schnell(tmp_path_factory) -> Path:
    """Without one, like FLUX.1-schnell."""
    return build_flux(tmp_path_factory.mktemp("models") / "flux-schnell", guidance_embeds=False)


@pytest.fixture(scope="session")
def flux_fill(flux_dev, tmp_path_factory) -> Path:
    """The folder of flux_dev with a transformer that sees picture and mask, as FLUX.1-Fill does."""
    folder = tmp_path_factory.mktemp("fill") / "flux-fill"
    shutil.copytree(flux_dev, folder)
    config = dict(FluxTransformer2DModel.load_config(folder / "transformer"))
    torch.manual_seed(1)
    model = FluxTransformer2DModel.from_config({**config, "in_channels": 384, "out_channels": 64})
    model.save_pretrained(folder / "transformer")
    return folder


def pytest_generate_tests(metafunc):
    """Tests marked `also_on_card` that use a device run on the CPU and on the card made of the CPU (tests/card)."""
    if "device" in metafunc.fixturenames and metafunc.definition.get_closest_marker("also_on_card"):
        metafunc.parametrize("device", ["cpu", pytest.param("card", marks=pytest.mark.card)], indirect=True)


@pytest.fixture
def device(request):
    """Where a run computes: the CPU, but see `pytest_generate_tests`."""
    name = getattr(request, "param", "cpu")
    card.reset()
    with card.pinning() if name == "card" else nullcontext():
        yield name
    assert card.races == []


@pytest.fixture
def config_file(flux_dev, tmp_path, device):
    """Writes a TOML file of a short run on the random FLUX; keyword arguments replace whole sections."""
    model = f"path = {str(flux_dev)!r}\ndevice = {device!r}\ntext_tokens = 12"
    if device == "card":  # which would take bf16
        model += "\ndtype = 'float32'"

    def write(name: str = "config.toml", **sections: str) -> Path:
        tables = {
            "model": model,
            "lora": "rank = 4\nalpha = 8",
            "sampling": "width = 64\nheight = 64\nsteps = 4",
            "grpo": "group_size = 4\nanchors = 2\ntrained_steps = 2\nprompts_per_iteration = 2",
            "optimizer": "learning_rate = 1e-3\nema_decay = 0.5\nwarmup = 8",
            "run": f"folder = {str(tmp_path / 'run')!r}\niterations = 3\nmicro_batch = 4\nsave_every = 2",
            **sections,
        }
        head = tables.pop("head", 'prompts = ["a red apple", "a blue fish", "a green tree"]')
        rewards = tables.pop("rewards", '[[rewards]]\nkind = "colourfulness"')
        body = "\n\n".join(f"[{key}]\n{value}" for key, value in tables.items())
        path = tmp_path / name
        path.write_text(f"{head}\n\n{body}\n\n{rewards}\n", "utf-8")
        return path

    return write
