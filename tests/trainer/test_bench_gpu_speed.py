"""`bench gpu`, checks 5 to 8: speed, in counted operations."""

from functools import partial

import diffusers
import pytest
import torch
from small_bench import Counting, around, bench_of, check, odd, well

from trainer.benchmarks.gpu import offload, speed
from trainer.benchmarks.gpu.card import Card
from trainer.engine.grpo import collect
from trainer.models.storage import memory


@pytest.fixture
def bench(flux_dev):
    return bench_of(flux_dev)


@pytest.fixture
def counting(flux_dev):
    return bench_of(flux_dev, Counting("cpu"))


# ---- 5, 6, 7, 8: speed, in counted operations


def test_an_iteration_is_its_bare_model_calls(counting):
    well(result := check(5, counting))
    assert 0.95 < result.value("ratio") <= 1.05


def test_a_rollout_too_many_is_noticed(counting, monkeypatch):
    def twice(setup, iteration, clock, on_drawn):
        collect(setup, iteration, clock)
        return collect(setup, iteration, clock, on_drawn)

    monkeypatch.setattr("trainer.training.loop.collect", twice)
    assert odd(check(5, counting)) == {"ratio"}


def test_where_time_goes_adds_up(counting):
    counting.results[0] = check(0, counting)
    well(result := check(6, counting))
    assert result.value("micro-batch 4: of the product's speed") == pytest.approx(1)
    shares = [v.value for v in result.values if v.name.startswith("share of ")]
    assert sum(shares) == pytest.approx(1)
    assert result.value("share of matrix products") > 0


def test_seconds_that_nobody_waited_for_are_noticed(counting, monkeypatch):
    counting.results[0] = check(0, counting)
    around(monkeypatch, speed, "forward", lambda original, *_: original() / 2)
    assert odd(check(6, counting)) == {f"micro-batch {n}: of the product's speed" for n in (1, 2, 4)}


def test_kernels_of_no_known_kind_are_noticed(counting, monkeypatch):
    monkeypatch.setattr(speed, "KINDS", {"attention": speed.KINDS["attention"]})
    assert odd(check(6, counting)) == {"share of other"}


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "attention"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", "matrix products"),
        ("ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_tn", "matrix products"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>", "elementwise"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "casts"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::BFloat16>", "elementwise"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("triton_poi_fused_mul_0", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel, kind):
    assert speed.kind_of(kernel) == kind


def test_copies_that_do_not_run_beside_the_computation_are_noticed(bench, monkeypatch):
    computing, copying = {1: 1.0, 2: 1.0, 4: 2.0}, 1.0

    def forward(shown):
        def seconds(bench, setup, size, repeats=2):
            return computing[size] + (copying * (1 - shown) if setup.config.model.offload else 0)

        return seconds

    monkeypatch.setattr(offload, "streams_of", lambda device: object())
    monkeypatch.setattr(offload, "copies", lambda *_: copying)
    monkeypatch.setattr(offload, "forward", forward(0.75))
    well(result := check(7, bench))
    assert result.value(offload.HIDDEN.format(4)) == pytest.approx(0.75)
    monkeypatch.setattr(offload, "forward", forward(0.0))
    assert odd(check(7, bench)) == {offload.HIDDEN.format(4)}


def test_every_offloaded_weight_is_copied_when_copies_are_timed(bench, monkeypatch):
    setup = bench.full(offload.Case("fp8", 1.0, 64, 4))
    copied, copy = [], torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, source, **o: copied.append(source) or copy(self, source))
    offload.copies(bench, setup)
    layers = [m.weight for m in setup.policy.network.modules() if getattr(m, "fetcher", None)]
    assert len(layers) > 5
    assert sum(t.nbytes for t in copied) == 2 * sum(t.nbytes for t in layers)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile by the backend that only traces."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(Card, "seconds", lambda self, work, repeats=1: (work(), 1.0)[1])


def test_blocks_compile_without_a_break(bench, traced):
    well(result := check(8, bench))
    assert 1 <= result.value("graphs") <= speed.GRAPHS
    blocks = memory.blocks(bench.loaded[1].policy.network)
    assert all(block._compiled_call_impl is None for block in blocks)


def test_a_break_in_the_graph_is_noticed(bench, traced, monkeypatch):
    block = diffusers.models.transformers.transformer_flux.FluxSingleTransformerBlock
    forward = block.forward

    def broken(self, *args, **options):
        torch._dynamo.graph_break()
        return forward(self, *args, **options)

    monkeypatch.setattr(block, "forward", broken)
    assert "graph breaks" in odd(check(8, bench))
