"""`bench gpu` without a GPU: a small random FLUX, and a clock that tells operations instead of seconds."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch.utils.flop_counter import FlopCounterMode

from trainer.benchmarks.gpu.bench import Bench
from trainer.benchmarks.gpu.card import Card
from trainer.benchmarks.gpu.counts import Counts
from trainer.benchmarks.gpu.harness import attempt
from trainer.benchmarks.gpu.results import Result
from trainer.benchmarks.gpu.sizes import Sizes
from trainer.benchmarks.gpu.table import CHECKS

SECOND = 1e12  # operations


class Counting(Card):
    """A card whose seconds are the operations of the work, the same every time and on every machine."""

    def seconds(self, work: Callable[[], object], repeats: int = 1) -> float:
        with FlopCounterMode(display=False) as counter:
            for _ in range(repeats):
                work()
        return max(counter.get_total_flops() / repeats, 1.0) / SECOND  # copies have none


def sizes_of(flux: Path, **changes: object) -> Sizes:
    """Of the model in a diffusers folder, whose weights are not read."""
    small = {
        "path": str(flux),
        "reward": "tiny-clip",
        "dtype": "float32",
        "pixels": 64,
        "large": 96,
        "narrow_pixels": 64,
        "narrow_tokens": 8,
        "group": 4,
        "steps": 2,
        "fewer_steps": 2,
        "micro_batches": (1, 2, 4),
        "matrix": 64,
        "copied": 2**16,
        "moved": 2**16,
        "passes": 2,
        "pairs": 1,
        "left": 2**16,
        "slack": 0,
        "drawn_on_device": False,
    }
    return Sizes(narrow={}, narrow_vae={}, blocks={}, **{**small, **changes})


def bench_of(flux: Path, card: Card | None = None, **changes: object) -> Bench:
    return Bench(card or Card("cpu"), sizes_of(flux, **changes), Counts())


def check(number: int, bench: Bench) -> Result:
    """The result of one check."""
    result = attempt(CHECKS[number], bench)
    assert result.number == number
    assert not result.trace, result.trace
    return result


def odd(result: Result) -> set[str]:
    """Names of the values that are not as expected."""
    return {value.name for value in result.values if not value.ok}


def well(result: Result) -> None:
    assert result.status == "ok", result.reason
    assert result.values


def around(monkeypatch, owner, name, change):
    """`owner.name` gives what `change(original, *arguments)` says."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: change(partial(original, *args, **options), *args))
