"""Stage 6a: which (prompt, anchor, step) triples are trained."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..choices import EARLY, LATE, RANDOM, STRATIFIED


@dataclass(frozen=True)
class Pairs:
    """The M = P * B * K trained triples of an iteration, int64 [M] each, ordered by step."""

    prompt: Tensor  # 0 .. P - 1
    anchor: Tensor  # 0 .. G - 1
    step: Tensor  # 0 .. K - 1, the place of the step among the kept ones
    chosen: int | None = None  # how many there were before some were left out; None if these are all

    def __len__(self) -> int:
        return len(self.step)

    @property
    def total(self) -> int:
        """What sums over them are divided by."""
        return len(self) if self.chosen is None else self.chosen

    def part(self, start: int, size: int) -> "Pairs":
        """`size` of the triples, or what is left of them."""
        return self._each(lambda indices: indices[start : start + size])

    def only(self, prompts: Tensor) -> "Pairs":
        """The triples of the prompts marked in [P] bool: a group without advantages needs no pass at all."""
        mask = prompts[self.prompt]
        return self._each(lambda indices: indices[mask])

    def only_step(self, k: int) -> "Pairs":
        """The triples of one kept step, as if it were all."""
        mask = self.step == k
        return Pairs(self.prompt[mask], self.anchor[mask], torch.zeros_like(self.step[mask]))

    def those(self, mask: Tensor, of: int) -> "Pairs":
        """The triples marked in [M] bool, which are one of `of` shares alike."""
        share = self._each(lambda indices: indices[mask])
        return replace(share, chosen=max(1, round(self.total / of)))

    def anchors(self, prompts: int, group_size: int) -> Tensor:
        """Which candidates are an anchor at one step at least, [P, G] bool."""
        mask = torch.zeros(prompts, group_size, dtype=torch.bool)
        mask[self.prompt, self.anchor] = True
        return mask

    def to(self, device: torch.device) -> "Pairs":
        return self._each(lambda indices: indices.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Pairs":
        return Pairs(change(self.prompt), change(self.anchor), change(self.step), self.total)


def joined(first: Pairs, second: Pairs) -> Pairs:
    """The pairs of both, whose kept steps follow each other's."""
    later = second.step + first.step.max() + 1
    return Pairs(
        torch.cat([first.prompt, second.prompt]),
        torch.cat([first.anchor, second.anchor]),
        torch.cat([first.step, later]),
    )


def choose_steps(steps: int, count: int, choice: str = RANDOM, *, generator: torch.Generator) -> list[int]:
    """K of the T steps, ascending: at random, without replacement, or the first or the last."""
    if not 1 <= count <= steps:
        raise ValueError(f"trained steps must be between 1 and the {steps} solver steps, got {count}")
    if choice == EARLY:
        return list(range(count))
    if choice == LATE:
        return list(range(steps - count, steps))
    return torch.randperm(steps, generator=generator)[:count].sort().values.tolist()


def choose_pairs(
    prompts: int, group_size: int, anchors: int, steps: int, *, pairing: str, generator: torch.Generator
) -> Pairs:
    """B of the G candidates of each prompt at random, all different, at each of the K kept steps (symmetric sampling).

    Candidates of a group are nearly equidistant, so any of them can be the anchor; this costs B * K forward and
    backward passes a prompt instead of G * T.

    Args:
        pairing: "crossed" takes the same B at each step, as the paper does; "stratified" deals the candidates out,
            B to each step, and begins anew when all have had their turn: while B * K <= G none comes twice.
        generator: of the CPU.
    """
    if not 1 <= anchors <= group_size:
        raise ValueError(f"anchors must be between 1 and the group size {group_size}, got {anchors}")
    turn = torch.arange(steps * anchors) if pairing == STRATIFIED else torch.arange(anchors).repeat(steps)
    order = torch.rand(prompts, group_size, generator=generator).argsort(1)
    anchor = order[:, turn % group_size].view(prompts, steps, anchors).sort(-1).values  # [P, K, B]
    return Pairs(
        prompt=torch.arange(prompts).repeat_interleave(anchors).repeat(steps),
        anchor=anchor.transpose(0, 1).flatten(),
        step=torch.arange(steps).repeat_interleave(prompts * anchors),
    )
