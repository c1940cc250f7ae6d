"""Check 13: the text encoders at full size, and the memory plan that is chosen by itself once they are gone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...choices import AUTO
from ...models.flux1.text import BATCH
from ...models.storage.memory import MemoryPlan, readied
from ...models.storage.placement import Placement
from ...planning import models as shapes
from ...planning.advice import title
from ...planning.choice import choose
from ...planning.phases import Peak
from ...settings.config import Config
from .bench import Bench, dtype_of
from .card import GIB
from .counts import Case
from .models import fill
from .results import Skipped, Value


def encoders(bench: Bench) -> Iterator[Value]:
    if bench.card.free() is None:
        raise Skipped("this device does not tell how much of its memory is free")
    bench.drop()
    for size, expected in bench.sizes.chosen.items():
        name = f"with {size / GIB:.3g} GiB free"
        try:
            with only(bench, size):
                seconds, finite = encoded(bench)
                chosen = automatic(bench)
        except Skipped as error:
            yield Value(name, f"skipped: {error}")
            continue
        yield Value(f"{name}: {BATCH} prompts", seconds, "s")
        yield Value(f"{name}: embeddings", "finite" if finite else "not finite", equals="finite")
        yield Value(f"{name}: the transformer's plan", chosen, equals=expected)


@contextmanager
def only(bench: Bench, size: int) -> Iterator[None]:
    """Inside, `size` bytes of the device are free. Raises Skipped if fewer are."""
    bench.card.release()
    free = bench.card.free() or 0
    if free < size:
        raise Skipped(f"{free / GIB:.1f} GiB are free")
    ballast = torch.empty(free - size, dtype=torch.uint8, device=bench.card.device)
    try:
        yield
    finally:
        del ballast
        bench.card.release()


@torch.no_grad()
def encoded(bench: Bench) -> tuple[float, bool]:
    """(seconds, whether the embeddings are finite) of a batch through T5, kept as the plan for it says."""
    _, t5 = shapes.text_encoders(bench.sizes.path)
    device = str(bench.card.device)
    fill(t5, readied(Placement(device, dtype_of(bench.sizes), AUTO))(t5), bench.draw_on)
    t5.tie_weights()
    length = shapes.tokens(bench.config(Case("bf16", 0.0, bench.sizes.pixels, 4)).model)
    ids = torch.arange(BATCH * length, device=device).view(BATCH, length) % t5.config.vocab_size
    embeddings = t5(ids)[0]
    return bench.card.seconds(lambda: t5(ids)), bool(embeddings.isfinite().all())


def automatic(bench: Bench) -> str:
    """What a run on what is free now would choose: the encoders' memory must have come back."""
    config = bench.config(Case("auto", 0.0, bench.sizes.pixels, 4))

    def counted(config: Config, plan: MemoryPlan) -> dict[str, Peak]:
        case = Case(plan.precision, plan.offload, bench.sizes.pixels, config.run.micro_batch)
        return {phase: Peak(size, 0) for phase, size in bench.counts.of(case, bench.config(case)).items()}

    return title(choose(config, bench.card.free(), counted).plan)
