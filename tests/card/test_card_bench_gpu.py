"""`bench gpu` on the card made of the CPU: what it says of memory, copies and waits, and the faults that it notices."""

import gc
from contextlib import contextmanager

import card
import pytest
import torch
from small_bench import bench_of, check, odd, well

from trainer.benchmarks.gpu import encoders, memory, paths
from trainer.benchmarks.gpu.card import GIB, Card
from trainer.benchmarks.gpu.counts import Case
from trainer.engine.grpo import judge
from trainer.engine.micro_batch import MicroBatch
from trainer.models.flux1.vae import Vae
from trainer.models.storage.fetching import LayerFetcher
from trainer.stages.rollout import rollout


class Waiting(Card):
    """The card says itself when the host waits, as CUDA does."""

    @contextmanager
    def waits(self):
        yield lambda: len(card.waits)


@pytest.fixture(scope="module")
def counted():
    """What the planner has counted, once for all tests."""
    return {}


@pytest.fixture
def bench(flux_dev, counted):
    made = bench_of(flux_dev, Waiting(card.CARD), dtype="bfloat16", first_case=True)
    made.counts.known = counted
    with card.pinning():
        yield made


def test_the_card_is_named_with_its_memory(bench):
    facts = bench.card.facts()
    assert facts["card"] == "card made of the CPU"
    assert facts["capability"] == "8.9"
    assert facts["memory_gib"] == card.TOTAL / GIB


def test_a_card_without_a_number_is_the_current_one():
    assert Card("card").device == card.CARD  # torch.cuda sets no limit for a device without one
    assert Card("cpu").device == torch.device("cpu")


def test_the_ground_is_copied_beside_the_computation(bench):
    well(check(0, bench))


def test_every_path_gives_the_cpus_numbers_without_a_wait(bench):
    well(result := check(1, bench))
    assert len(result.values) == 3 * len(paths.PATHS) > 60


def test_a_tensor_left_on_the_host_is_named_by_its_path(bench, monkeypatch):
    monkeypatch.setattr(paths, "PATHS", {name: paths.PATHS[name] for name in ("text", "Fill")})
    monkeypatch.setattr("trainer.stages.inpainting.Init.to", lambda self, device: self)
    result = check(1, bench)
    assert odd(result) == {"Fill"}
    assert "device" in result.value("Fill")


# ---- offload


def test_fetched_weights_arrive_in_time(bench):
    well(check(2, bench))


def test_a_copy_that_nobody_waits_for_is_noticed(bench, monkeypatch):
    monkeypatch.setattr(LayerFetcher, "_arrived", lambda self, copied: copied.copy)
    card.Streams.strict = False  # as on a real card: the run goes on with whatever numbers there are
    names = odd(check(2, bench))
    assert {"bf16: passes with another velocity", "fp8: passes with another velocity"} <= names


# ---- the plan's counts


def test_peaks_are_the_plans_within_two_percent(bench):
    well(result := check(4, bench))
    assert sum(value.unit == "GiB" and bool(value.expected) for value in result.values) == 4


def test_a_phase_that_holds_more_than_planned_is_noticed(bench, monkeypatch):
    def hoarding(velocity, begin, *args):
        kept = begin.new_zeros(0 if begin.is_meta else 2**17)  # half a MiB that the planner does not see
        found = rollout(velocity, begin, *args)
        del kept
        return found

    monkeypatch.setattr("trainer.engine.drawing.rollout", hoarding)
    assert odd(check(4, bench)) == {"bf16, 64 px, micro-batch 4: rollout peak"}


def test_a_plan_that_counts_too_much_is_noticed(bench):
    case = Case("bf16", 0.0, 64, 4)
    counted = bench.counts.of(case, bench.config(case))
    bench.counts.known = {case: {**counted, "decode": round(1.05 * counted["decode"])}}
    assert odd(check(4, bench)) == {"bf16, 64 px, micro-batch 4: decode peak"}


# ---- memory that is full


@pytest.fixture(scope="module")
def needs():
    """What a run needs at each micro-batch, measured once for all tests."""
    return {}


@pytest.fixture
def heavy_decoder(monkeypatch, needs):
    """Memory runs out there: an exception in a thread of the backward pass ends the process that the card is in."""
    needed_by = memory.needed_by

    def once(bench, size):
        if size not in needs:
            needs[size] = needed_by(bench, size)
        return needs[size]

    monkeypatch.setattr(memory, "needed_by", once)
    decode = Vae.decode

    def decoded(self, z):
        hog = z.new_zeros(len(z), 2**20)  # 4 MiB a picture
        images = decode(self, z)
        del hog
        return images

    monkeypatch.setattr(Vae, "decode", decoded)


@pytest.mark.usefixtures("heavy_decoder")
def test_a_full_card_halves_and_then_gives_advice(bench):
    well(result := check(9, bench))
    assert "out of memory in " in result.value("below micro-batch 1")
    assert card.memory.limit == card.TOTAL  # given back


@pytest.mark.usefixtures("heavy_decoder")
def test_memory_that_runs_out_and_is_not_answered_is_noticed(bench, monkeypatch):
    monkeypatch.setattr(MicroBatch, "fit", lambda self, phase, work: work(self.size))
    result = check(9, bench)
    assert odd(result) == {"times halved", "completes"}
    assert result.value("completes").startswith("out of memory beside the model calls (card out of memory")


# ---- leaks


def test_memory_is_level_and_comes_back(bench):
    well(check(11, bench))


def test_what_every_iteration_leaves_behind_is_noticed(bench, monkeypatch):
    kept = []

    def keeping(config, candidates, scores, shares):
        kept.append(candidates.images.new_zeros(2**19))  # 2 MiB
        return judge(config, candidates, scores, shares)

    monkeypatch.setattr("trainer.engine.grpo.judge", keeping)
    assert odd(check(11, bench)) == {
        "grown from the second iteration to the fourth",
        "left after the policy is dropped",
    }


# ---- the encoders and what is chosen after them


@pytest.fixture
def narrow_card(flux_dev):
    """With as much free memory as bf16 needs, and with less; and counts, so that nothing is to be counted."""
    card.memory.limit = 128 * 2**20
    counts = {"bf16": 60, "fp8": 20}  # MiB
    chosen = {56 * 2**20: "fp8", 80 * 2**20: "bf16"}
    bench = bench_of(flux_dev, Card(card.CARD), dtype="bfloat16", chosen=chosen)
    for size in (1, 2, 4):
        for plan, mib in counts.items():
            bench.counts.known[Case(plan, 0.0, 64, size)] = dict.fromkeys(("rollout", "update"), mib * 2**20)
    with card.pinning():
        yield bench


def test_the_plan_is_chosen_by_what_is_free_once_the_encoders_are_gone(narrow_card):
    well(result := check(13, narrow_card))
    assert [v.value for v in result.values if v.name.endswith("plan")] == ["fp8", "bf16"]


def test_encoders_that_do_not_go_are_noticed(narrow_card, monkeypatch):
    encoded, kept = encoders.encoded, []

    def staying(bench):
        kept.append(torch.zeros(2**23, device=card.CARD))  # 32 MiB
        return encoded(bench)

    monkeypatch.setattr(encoders, "encoded", staying)
    (name,) = odd(check(13, narrow_card))
    assert name == "with 0.0781 GiB free: the transformer's plan"


def test_a_card_with_less_memory_is_not_asked(narrow_card):
    card.memory.limit = 60 * 2**20
    result = check(13, narrow_card)
    assert result.value("with 0.0781 GiB free").startswith("skipped: 0.1 GiB are free")


def test_nothing_of_a_check_stays_on_the_card(bench):
    """But the model that the next check uses."""
    for number in (0, 2):
        assert check(number, bench).status == "ok"
        gc.collect()
        assert card.memory.live == 0, number
    bench.full(Case("bf16", 0.0, 64, 4))
    assert card.memory.live > 0
    bench.drop()
    assert card.memory.live == 0
