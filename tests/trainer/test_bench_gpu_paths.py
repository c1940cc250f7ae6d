"""`bench gpu`, checks 0 and 1: well as it is, and each notices what it is there to notice."""

import diffusers
import pytest
import torch
from small_bench import around, bench_of, check, odd, well
from torch.nn.attention import SDPBackend

from trainer.benchmarks.gpu import ground, paths
from trainer.benchmarks.gpu.card import Card
from trainer.benchmarks.gpu.models import changed
from trainer.benchmarks.gpu.sizes import FULL
from trainer.planning import models as shapes
from trainer.planning.models import META


@pytest.fixture
def bench(flux_dev):
    return bench_of(flux_dev)


# ---- 0, ground


def test_the_ground_is_what_a_device_can_do(bench):
    result = check(0, bench)
    well(result)
    assert result.value(ground.PRODUCT) > 0
    assert result.value("fused attention kernels") >= 1


def test_bytes_that_do_not_arrive_are_noticed(bench, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, source, **_: self)
    assert odd(check(0, bench)) == {"what arrives"}


def test_a_card_without_fused_attention_is_noticed(bench, monkeypatch):
    def refused(original, _, kernel):
        if kernel != SDPBackend.MATH:
            raise RuntimeError("no kernel image is available")
        return original()

    around(monkeypatch, ground, "attention_gradient", refused)
    assert odd(check(0, bench)) == {"fused attention kernels"}


def test_a_kernel_whose_gradient_is_wrong_is_noticed(bench, monkeypatch):
    """As cuDNN's on an H200: it takes the gradient for one that lies in memory as the output does."""

    def shuffled(original, _, kernel):
        gradient = original()
        return gradient if kernel == SDPBackend.MATH else gradient.flip(0)

    around(monkeypatch, ground, "attention_gradient", shuffled)
    assert odd(check(0, bench)) == {"flash attention's gradient", "fused attention kernels"}


def test_speeds_are_held_against_an_h200_on_an_h200_alone(bench, monkeypatch):
    monkeypatch.setattr(Card, "name", "NVIDIA H200")
    assert odd(check(0, bench)) == {"matrix product", "copy to the device", "copy within the device"}


# ---- 1, every path


def test_the_narrow_model_has_the_attention_of_flux_and_little_else():
    with META:
        narrow = diffusers.FluxTransformer2DModel.from_config(changed(shapes.transformer(FULL.path), FULL.narrow))
        vae = diffusers.AutoencoderKL.from_config(changed(shapes.autoencoder(FULL.path), FULL.narrow_vae))
    assert (narrow.config.attention_head_dim, narrow.config.num_attention_heads) == (128, 4)
    assert (len(narrow.transformer_blocks), len(narrow.single_transformer_blocks)) == (2, 2)
    assert sum(p.numel() for p in narrow.parameters()) < 50e6
    assert sum(p.numel() for p in vae.parameters()) < 2e6
    assert narrow.config.guidance_embeds


FEW = ("text", "fp8, bf16", "two updates", "two sizes")


@pytest.fixture
def few_paths(monkeypatch):
    monkeypatch.setattr(paths, "PATHS", {name: paths.PATHS[name] for name in FEW})


def test_paths_are_those_of_the_cpu(bench, few_paths):
    result = check(1, bench)
    well(result)
    assert [v.name.partition(":")[0] for v in result.values] == [name for name in FEW for _ in range(3)]


@pytest.fixture
def second(monkeypatch):
    """Changes the setup that the device has, and not the one that the CPU computes beside it."""

    def plant(change):
        made = []

        def change_second(original, *_):
            setup = original()
            made.append(setup)
            if len(made) == 2:
                change(setup)
            return setup

        monkeypatch.setattr(paths, "PATHS", {"text": paths.PATHS["text"]})
        around(monkeypatch, paths, "random_setup", change_second)

    return plant


@torch.no_grad()
def heavier(setup):
    setup.policy.network.x_embedder.weight *= 1.02


def test_a_path_that_ends_elsewhere_is_noticed(bench, second):
    second(heavier)
    assert "text: x_0" in odd(check(1, bench))


def test_a_gradient_of_another_direction_is_noticed(bench, second):
    def turned(setup):
        last = next(p for name, p in reversed(setup.lora.items()) if ".lora_B." in name)
        last.register_hook(lambda gradient: -gradient)

    second(turned)
    assert odd(check(1, bench)) == {"text: gradient's cosine"}


def test_gradients_that_point_the_other_way_have_a_cosine_of_minus_1():
    gradient = torch.tensor([3.0, -4.0])
    assert paths.cosine(gradient, -2 * gradient) == pytest.approx(-1)
    assert paths.cosine(gradient, torch.tensor([4.0, 3.0])) == pytest.approx(0)


def test_a_wait_in_the_inner_loop_is_noticed(bench, second):
    def waiting(setup):
        setup.policy.network.register_forward_hook(lambda module, _, out: out[0].sum().item() and None)

    second(waiting)
    (name,) = odd(result := check(1, bench))
    assert name == "text: waits within rollout and update"
    assert result.value(name) > 2


def test_a_path_that_breaks_is_named_and_the_others_go_on(bench, second, few_paths):
    def broken(setup):
        setup.policy.autoencoder = None

    second(broken)
    paths.PATHS["rsLoRA"] = paths.PATHS["text"]
    result = check(1, bench)
    assert odd(result) == {"text"}
    assert result.value("text").startswith("ModelError: ")
    assert result.value("rsLoRA: x_0") == 0
