"""Checks 4, 9 and 11: the plan's counts against the card's memory, what happens when it is full, and leaks."""

from collections.abc import Iterator
from dataclasses import replace

from ...engine.state import Setup, new_state
from ...errors import UserError
from ...events import Event, Halved
from ...training.loop import train
from .bench import Bench, iterate
from .card import GIB, Watched
from .counts import PHASES, Case
from .results import Bounds, Skipped, Value


def cases(bench: Bench) -> list[tuple[Case, int]]:
    """What check 4 measures, and by how many solver steps: they decide seconds, not memory."""
    sizes = bench.sizes
    first = Case("bf16", 0.0, sizes.pixels, 4)
    others = [replace(first, micro_batch=1), replace(first, pixels=sizes.large, micro_batch=1)]  # of the same weights
    others += [replace(first, memory="fp8", offload=offload) for offload in (0.0, 1.0)]
    return [(first, sizes.steps), *((case, sizes.fewer_steps) for case in others if not sizes.first_case)]


def plans(bench: Bench) -> Iterator[Value]:
    """Peaks and seconds of each phase of an iteration. A case that does not fit the card is left out, and named."""
    first = None
    for case, steps in cases(bench):
        try:
            watched = measured(bench, case, steps)
        except Skipped as error:
            yield Value(str(case), f"skipped: {error}")
            continue
        yield from peaks(bench, case, watched)
        calls = watched.seconds["rollout"] / steps  # every candidate once
        for name, low, high in (("rollout", 5.3, 6.5), ("update", 2.9, 3.6)):
            expected: Bounds = bench.card.on_h200(low, high) if first is None and case.memory == "bf16" else {}
            yield Value(f"{case}: {name}", watched.seconds[name], "s", **expected)
        if case.memory == "bf16" and first is None:
            first = calls
        elif first and case == replace(cases(bench)[0][0], memory="fp8"):
            yield Value(f"{case}: a step against bf16's", calls / first, **bench.card.on_h200(1.0, 1.25))


def measured(bench: Bench, case: Case, steps: int) -> Watched:
    """The second iteration's phases: the first has made the optimiser's state and chosen kernels."""
    state = new_state(bench.full(case))
    iterate(bench.full(case, steps=1), state, Watched(bench.card))
    watched = Watched(bench.card)
    iterate(bench.full(case, steps=steps), state, watched)
    return watched


def peaks(bench: Bench, case: Case, watched: Watched) -> Iterator[Value]:
    if not watched.peaks:
        yield Value(f"{case}: peaks", "this device counts no memory")
        return
    counted = bench.counts.of(case, bench.config(case))
    for phase in PHASES:
        allocated, reserved = watched.peaks[phase]
        slack = max(bench.sizes.slack, 0.02 * counted[phase]) / GIB
        planned = counted[phase] / GIB
        yield Value(f"{case}: {phase} peak", allocated / GIB, "GiB", low=planned - slack, high=planned + slack)
        yield Value(f"{case}: {phase} reserved", reserved / GIB, "GiB")


def full_device(bench: Bench) -> Iterator[Value]:
    """Between the needs of micro-batches 4 and 2 a run halves and goes on; below 1's it ends with advice."""
    bench.card.need("set_per_process_memory_fraction")
    bench.drop()
    needs = {size: needed_by(bench, size) for size in (4, 2, 1)}
    yield from (Value(f"needed at micro-batch {size}", need / GIB, "GiB") for size, need in needs.items())
    halved, error = limited(bench, 4, (needs[4] + needs[2]) // 2)
    yield Value("halved", ", ".join(f"{e.phase} to {e.micro_batch}" for e in halved) or "never")
    yield Value("times halved", float(len(halved)), low=1)
    yield Value("completes", error or "yes", equals="yes")
    model = at_rest(bench)
    _, error = limited(bench, 1, model + (needs[1] - model) // 2)
    yield Value("below micro-batch 1", error or "it fits")
    yield Value("it ends with advice", "yes" if "out of memory" in error and "set " in error else "no", equals="yes")


def few(bench: Bench, size: int) -> Setup:
    setup = bench.few(Case("bf16", 0.0, bench.sizes.pixels, size), steps=2)
    run = replace(setup.config.run, iterations=1)
    return replace(setup, config=replace(setup.config, run=run))


def needed_by(bench: Bench, size: int) -> int:
    """Bytes of tensors at the peak of a run at this micro-batch: what the allocator keeps beyond, it can give back."""
    setup = few(bench, size)
    bench.card.release()
    bench.card.watch()
    train(setup, new_state(setup), on_event=lambda _: None, save=lambda _: None)
    allocated = bench.card.peaks()[0]
    del setup
    bench.card.release()
    return allocated


def at_rest(bench: Bench) -> int:
    """Bytes of the model alone."""
    setup = few(bench, 1)
    size = bench.card.allocated()
    del setup
    bench.card.release()
    return size


def limited(bench: Bench, size: int, limit: int) -> tuple[list[Halved], str]:
    """(what was halved, the error in one line) of a run of one iteration that may take `limit` bytes."""
    setup, halved, error = few(bench, size), [], ""

    def listen(event: Event) -> None:
        if isinstance(event, Halved):
            halved.append(event)

    with bench.card.limited(limit):
        try:
            train(setup, new_state(setup), on_event=listen, save=lambda _: None)
        except UserError as told:
            error = str(told)
        except RuntimeError as broken:
            error = f"{type(broken).__name__}: {broken}".partition("\n")[0]
    del setup
    bench.card.release()
    return halved, error


def leaks(bench: Bench) -> Iterator[Value]:
    """Memory after each of four iterations, and after the policy was dropped."""
    if not bench.card.counts_memory:
        raise Skipped("this device counts no memory")
    bench.drop()
    before = bench.card.allocated()
    setup = bench.best(steps=2, trained_steps=1)[1]
    state, levels = new_state(setup), []
    for iteration in range(4):
        iterate(setup, state, Watched(bench.card), iteration)
        levels.append(bench.card.allocated())
    # the first one makes the optimiser's state
    yield Value("grown from the second iteration to the fourth", (levels[3] - levels[1]) / 2**20, "MiB", high=1.0)
    del setup, state
    bench.drop()
    left = bench.card.allocated() - before
    yield Value("left after the policy is dropped", left / GIB, "GiB", high=bench.sizes.left / GIB)
    reserved = bench.card.module.memory_reserved(bench.card.device) if bench.card.module else 0
    yield Value("reserved then", reserved / GIB, "GiB")
