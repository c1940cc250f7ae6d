"""Stage 2c: trajectories, with the states and velocities that training needs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from ..device import Device
from .inpainting import Unmasked
from .solvers import Solver

BatchVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # x [N, ...], sigma [N], rows [N] -> v [N, ...]


@dataclass(frozen=True)
class Trajectories:
    """N trajectories: where they end, and the K kept steps that training needs. Tensors are float32."""

    x_0: Tensor  # clean latents, [N, *latent]
    steps: list[int]  # the kept steps j, ascending
    sigma: Tensor  # s_j, [K]
    step_size: Tensor  # s_{j+1} - s_j < 0, [K]
    x: Tensor  # x_j, [K, N, *latent]
    v: Tensor  # the old policy's velocity at (x_j, s_j), [K, N, *latent]
    x_next: Tensor  # x_{j+1}, [K, N, *latent]
    masked: Tensor | None = None  # positions in the flattened latent that are drawn anew, [n]; None: all of them

    def only(self, steps: Sequence[int]) -> "Trajectories":
        """The same trajectories with these of the kept steps, ascending."""
        rows = [self.steps.index(j) for j in sorted(steps)]
        kept = {name: getattr(self, name)[rows] for name in ("sigma", "step_size", "x", "v", "x_next")}
        return Trajectories(x_0=self.x_0, steps=sorted(steps), masked=self.masked, **kept)

    def to(self, device: Device) -> "Trajectories":
        masked = None if self.masked is None else self.masked.to(device)
        names = ("x_0", "sigma", "step_size", "x", "v", "x_next")
        return replace(self, masked=masked, **{name: getattr(self, name).to(device) for name in names})

    def inside(self, x: Tensor) -> Tensor:
        """The masked part of latents, which alone is compared: [..., *latent] -> [..., n], or all as it is."""
        return x if self.masked is None else x.flatten(1 - self.x_0.dim()).index_select(-1, self.masked)


@torch.no_grad()
def rollout(
    velocity: BatchVelocity,
    begin: Tensor,
    rows: Tensor,
    sigmas: Tensor,
    solver: Solver,
    kept: Sequence[int] = (),
    unmasked: Unmasked | None = None,
    generator: torch.Generator | None = None,
) -> Trajectories:
    """Run N trajectories from `begin` and keep what training will need.

    Args:
        velocity: the policy, see `micro_batched`.
        begin: x at sigmas[0], [N, *latent] float32; noise if that is 1.
        rows: which condition each trajectory has, [N] int64.
        sigmas: grid [T + 1] float64, decreasing to 0.
        solver: such as those in SOLVERS.
        kept: the steps j to store, in 0 .. T - 1. Nothing of the other steps outlives them.
        unmasked: what inpainting leaves as it is.
        generator: for a solver that draws random numbers.
    """

    def at(x: Tensor, s: float) -> Tensor:
        v = velocity(x, x.new_full((len(x),), s), rows)
        return unmasked.velocity(v) if unmasked else v

    grid = sigmas.tolist()
    steps = sorted(kept)
    x, v, x_next = (begin.new_empty((len(steps), *begin.shape)) for _ in range(3))
    end = begin
    for j, (x_j, v_j, end) in enumerate(solver(at, begin, grid, generator)):
        if j in steps:
            k = steps.index(j)
            x[k], v[k], x_next[k] = x_j, v_j, end
    return Trajectories(
        x_0=unmasked.end(end) if unmasked else end,
        steps=steps,
        sigma=begin.new_tensor([grid[j] for j in steps]),
        step_size=begin.new_tensor([grid[j + 1] - grid[j] for j in steps]),
        x=x,
        v=v,
        x_next=x_next,
        masked=unmasked.positions if unmasked else None,
    )


Around = Callable[[int, int, int], AbstractContextManager[None]]  # a call's number, a part's first row and size


def plainly(call: int, first: int, size: int) -> AbstractContextManager[None]:
    return nullcontext()


def micro_batched(
    velocity: BatchVelocity, size: int, *, filled: bool = True, around: Around = plainly
) -> BatchVelocity:
    """`velocity` on any number of rows, `size` at a time.

    Args:
        filled: whether a short last batch is filled up with copies of its last row. Matrix products give other bits for
            other batch shapes, and the ratio of new to old policy is exactly 1 at the start only if both saw the same
            one; where no ratio is taken, or by batches of another size, the copies would buy nothing.
        around: entered for each of the parts.
    """
    calls = count()

    def batched(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        call, out = next(calls), []
        for start in range(0, len(x), size):
            part = [t[start : start + size] for t in (x, sigma, rows)]
            with around(call, start, size):
                out.append(velocity(*(fill(t, size) for t in part) if filled else part)[: len(x) - start])
        return torch.cat(out)

    return batched


def fill(rows: Tensor, size: int) -> Tensor:
    """`rows` [n, ...] lengthened to [size, ...] with copies of its last row."""
    missing = size - len(rows)
    return rows if missing == 0 else torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
