"""`bench gpu`, the checks that a CPU can do: all is well as it is, and each notices what it is there to notice."""

from functools import partial
from types import SimpleNamespace

import diffusers
import pytest
import torch
from small_bench import Counting, bench_of, check, odd

from trainer.benchmarks.gpu import ending, ground, offload, paths, speed
from trainer.benchmarks.gpu.card import Card
from trainer.benchmarks.gpu.results import Result, Value
from trainer.iteration import collect
from trainer.models import memory
from trainer.models.fetching import LayerFetcher
from trainer.models.flux import FluxPolicy, VaeDecoder


@pytest.fixture
def bench(flux_dev):
    return bench_of(flux_dev)


@pytest.fixture
def counting(flux_dev):
    return bench_of(flux_dev, Counting("cpu"))


def well(result: Result) -> None:
    assert result.status == "ok", result.reason
    assert result.values


def around(monkeypatch, owner, name, change):
    """`owner.name` gives what `change(original, *arguments)` says."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: change(partial(original, *args, **options), *args))


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
    def refuse(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    assert odd(check(0, bench)) == {"fused attention kernels"}


def test_speeds_are_held_against_an_h200_on_an_h200_alone(bench, monkeypatch):
    monkeypatch.setattr(Card, "name", "NVIDIA H200")
    assert odd(check(0, bench)) == {"matrix product", "copy to the device", "copy within the device"}


# ---- 1, every path


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
    setup.policy.transformer.x_embedder.weight *= 1.02


def test_a_path_that_ends_elsewhere_is_noticed(bench, second):
    second(heavier)
    assert "text: x_0" in odd(check(1, bench))


def test_a_gradient_of_another_direction_is_noticed(bench, second):
    def turned(setup):
        last = next(p for name, p in reversed(setup.lora.items()) if ".lora_B." in name)
        last.register_hook(lambda gradient: -gradient)

    second(turned)
    assert odd(check(1, bench)) == {"text: gradient's cosine"}


def test_a_wait_in_the_inner_loop_is_noticed(bench, second):
    def waiting(setup):
        setup.policy.transformer.register_forward_hook(lambda module, _, out: out[0].sum().item() and None)

    second(waiting)
    (name,) = odd(result := check(1, bench))
    assert name == "text: waits within rollout and update"
    assert result.value(name) > 2


def test_a_path_that_breaks_is_named_and_the_others_go_on(bench, second, few_paths):
    def broken(setup):
        setup.policy.decoder = None

    second(broken)
    paths.PATHS["rsLoRA"] = paths.PATHS["text"]
    result = check(1, bench)
    assert odd(result) == {"text"}
    assert result.value("text").startswith("TypeError: ")
    assert result.value("rsLoRA: x_0") == 0


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


# ---- 5, 6, 7, 8: speed, in counted operations


def test_an_iteration_is_its_bare_model_calls(counting):
    well(result := check(5, counting))
    assert 0.95 < result.value("ratio") <= 1.05


def test_a_rollout_too_many_is_noticed(counting, monkeypatch):
    def twice(setup, iteration, clock):
        collect(setup, iteration, clock)
        return collect(setup, iteration, clock)

    monkeypatch.setattr("trainer.loop.collect", twice)
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
    layers = [m.weight for m in setup.policy.transformer.modules() if getattr(m, "fetcher", None)]
    assert len(layers) > 5
    assert sum(t.nbytes for t in copied) == 2 * sum(t.nbytes for t in layers)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile by the backend that needs no compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(Card, "seconds", lambda self, work, repeats=1: (work(), 1.0)[1])


def test_blocks_compile_without_a_break(bench, traced):
    well(result := check(8, bench))
    assert 1 <= result.value("graphs") <= speed.GRAPHS
    blocks = memory.blocks(bench.loaded[1].policy.transformer)
    assert all(block._compiled_call_impl is None for block in blocks)


def test_a_break_in_the_graph_is_noticed(bench, traced, monkeypatch):
    block = diffusers.models.transformers.transformer_flux.FluxSingleTransformerBlock
    forward = block.forward

    def broken(self, *args, **options):
        torch._dynamo.graph_break()
        return forward(self, *args, **options)

    monkeypatch.setattr(block, "forward", broken)
    assert "graph breaks" in odd(check(8, bench))


# ---- 10, cancel


def test_a_stopped_run_is_untouched(bench):
    well(result := check(10, bench))
    assert {v.name for v in result.values if v.unit == "s"} == {"in rollout", "in decode", "in update"}


def test_a_stop_that_changes_the_lora_is_noticed(bench, monkeypatch):
    def touched(original, setup, *_):
        reason = original()
        with torch.no_grad():
            next(iter(setup.lora.values())).add_(1e-6)
        return reason

    around(monkeypatch, ending, "train", touched)
    assert odd(check(10, bench)) == {f"in {phase}: LoRA and optimiser" for phase in ending.SECONDS}


def test_a_wish_that_nobody_hears_is_noticed(bench, monkeypatch):
    """The calls of the update do not ask any more."""

    def deaf(original, policy, *_):
        velocity, ask = original(), policy.before_call

        def evaluate(*args):
            policy.before_call = (lambda: None) if torch.is_grad_enabled() else ask
            return velocity(*args)

        return evaluate

    monkeypatch.setattr(ending, "moments", lambda setup: {"update": 8})
    around(monkeypatch, FluxPolicy, "velocity", deaf)
    assert "in update: it ends as" in odd(check(10, bench))


# ---- 12, precision


def test_fewer_bits_are_near(bench):
    well(check(12, bench))


def test_a_scale_that_is_lost_is_noticed(bench, monkeypatch):
    around(monkeypatch, memory, "quantise", lambda original, *_: (original()[0], original()[1] * 1.5))
    assert odd(check(12, bench)) == {"velocity by fp8 weights"}


def test_weights_in_8_bits_that_are_none_are_noticed(bench, monkeypatch):
    plain = memory.Storage.__init__
    exact = memory.MemoryPlan("bf16")
    monkeypatch.setattr(memory.Storage, "__init__", lambda self, plan, **options: plain(self, exact, **options))
    assert odd(check(12, bench)) == {"velocity by fp8 weights"}


def test_a_decoder_that_loses_more_than_bits_is_noticed(bench, monkeypatch):
    def off(original, decoder, z):
        return original() + (0.1 if decoder.vae.dtype == torch.bfloat16 else 0)

    around(monkeypatch, VaeDecoder, "__call__", off)
    assert odd(check(12, bench)) == {"autoencoder in bfloat16: mean over pixels"}


# ---- 14, resume


def test_a_run_that_goes_on_ends_the_same(bench):
    well(check(14, bench))


def test_an_optimiser_that_forgets_is_noticed(bench, monkeypatch):
    monkeypatch.setattr("trainer.run.restore_optimizer", lambda *_: None)
    assert odd(check(14, bench)) == {"tensors of the LoRA that differ"}


def test_a_run_that_learns_nothing_is_noticed(bench, monkeypatch):
    monkeypatch.setattr("trainer.update.warmed_up", lambda *_: 0.0)
    monkeypatch.setattr("trainer.iteration.warmed_up", lambda *_: 0.0)
    assert odd(check(14, bench)) == {"the LoRA has learnt"}


# ---- 15, another allocator


@pytest.fixture
def allocators(bench):
    bench.card.module = SimpleNamespace(get_allocator_backend=lambda: "native")
    bench.results[4] = Result(4, "plan", "ok", [Value("bf16: update peak", 20.0, "GiB")])

    def run(races, peak):
        def again(numbers, environment):
            assert environment == {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
            found = {2: Result(2, "offload", *races), 4: Result(4, "plan", "ok", [Value("bf16: update peak", peak)])}
            return [found[n].to_dict() for n in numbers]

        bench.again = again
        bench.card.release = lambda: None
        return check(15, bench)

    return run


def test_another_allocator_gives_the_same(allocators):
    well(result := allocators(["ok"], 20.3))
    assert [v.name for v in result.values] == ["check 2", "check 4", "bf16: update peak"]


def test_a_race_or_another_peak_under_another_allocator_is_noticed(allocators):
    assert odd(allocators(["deviates", [], 0.0, "passes with another velocity is 1"], 20.0)) == {"check 2"}
    assert odd(allocators(["ok"], 20.5)) == {"bf16: update peak"}
