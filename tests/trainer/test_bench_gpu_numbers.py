"""`bench gpu`, checks 2, 3 and 12: the same numbers by other ways, and numbers of fewer bits."""

import pytest
import torch
from small_bench import around, bench_of, check, odd, well

from trainer.benchmarks.gpu import offload, velocities
from trainer.benchmarks.gpu.card import Card
from trainer.models.flux1.policy import FluxPolicy
from trainer.models.flux1.vae import Vae
from trainer.models.storage import memory
from trainer.models.storage.fetching import LayerFetcher


@pytest.fixture
def bench(flux_dev):
    return bench_of(flux_dev)


# ---- 2, offload


def test_fetched_weights_give_the_same_bits(bench):
    well(check(2, bench))


@pytest.mark.parametrize("backward", [False, True])
def test_a_copy_that_is_not_the_weight_is_noticed(bench, monkeypatch, backward):
    fetch, wrong = LayerFetcher.fetch, backward

    def fetched(self, weight, *, backward):
        copy = fetch(self, weight, backward=backward)
        return copy + 1 if backward == wrong else copy

    monkeypatch.setattr(LayerFetcher, "fetch", fetched)
    names = odd(check(2, bench))
    assert "bf16: passes with another gradient" in names
    assert ("bf16: passes with another velocity" in names) == (not backward)


def test_free_memory_is_poisoned_before_each_fetch(bench, monkeypatch):
    """What is read before the copy has come is NaN: the poison stands in the memory that the copy takes."""
    seen = []

    class Fetcher:
        stream = None

        def fetch(self, weight, *, backward):
            seen.append(torch.empty_like(weight))
            return weight

    fill = torch.Tensor.fill_
    monkeypatch.setattr(torch.Tensor, "fill_", lambda self, value: seen.append(value) or fill(self, value))
    shaken = offload.Shaken(Fetcher(), Card("cpu"), offload.random.Random(0))
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        shaken.fetch(torch.ones(4, dtype=dtype), backward=False)
        assert torch.full((8,), seen[0], dtype=torch.uint8).view(dtype).isnan().all()
    assert torch.full((8,), seen[0], dtype=torch.uint8).view(torch.float8_e4m3fn).float().isnan().all()


# ---- 3, the ratio


def test_rollout_and_update_have_the_same_velocity(bench):
    well(check(3, bench))


def test_a_velocity_that_is_another_one_with_gradient_is_noticed(bench, monkeypatch):
    def shifted(original, *_):
        velocity = original()
        return lambda *args: velocity(*args) * (1.1 if torch.is_grad_enabled() else 1)

    around(monkeypatch, FluxPolicy, "velocity", shifted)
    names = odd(check(3, bench))
    assert {"with gradient, the same micro-batch", "the run's self-test"} <= names
    assert not any("against" in name for name in names)


def test_a_velocity_that_depends_on_its_neighbours_is_noticed(bench, monkeypatch):
    def leaning(original, *_):
        velocity = original()
        return lambda *args: velocity(*args) + 0.1 * (len(args[0]) - 4)

    around(monkeypatch, FluxPolicy, "velocity", leaning)
    assert {"micro-batch 1 against 4", "micro-batch 2 against 4"} <= odd(check(3, bench))


# ---- 12, precision


def test_fewer_bits_are_near(bench):
    well(check(12, bench))


def test_a_scale_that_is_lost_is_noticed(bench, monkeypatch):
    around(monkeypatch, memory, "quantise", lambda original, *_: (original()[0], original()[1] * 1.5))
    assert odd(check(12, bench)) == {"velocity by fp8 weights", "velocity by fp8 products"}


def test_bytes_that_are_widened_otherwise_are_noticed(bench, monkeypatch):
    around(monkeypatch, velocities, "widen", lambda original, stored, *_: original().where(stored.float() != 2, 3))
    assert {name.partition(" ")[0] for name in odd(check(12, bench))} == {"int8", "float8_e4m3fn", "float8_e5m2"}


def test_weights_in_8_bits_that_are_none_are_noticed(bench, monkeypatch):
    plain = memory.Storage.__init__
    exact = memory.MemoryPlan("bf16")
    monkeypatch.setattr(memory.Storage, "__init__", lambda self, plan, **options: plain(self, exact, **options))
    assert odd(check(12, bench)) == {"velocity by fp8 weights"}


def test_a_decoder_that_loses_more_than_bits_is_noticed(bench, monkeypatch):
    def off(original, decoder, z):
        return original() + (0.1 if decoder.vae.dtype == torch.bfloat16 else 0)

    around(monkeypatch, Vae, "decode", off)
    assert odd(check(12, bench)) == {"autoencoder in bfloat16: mean over pixels"}
