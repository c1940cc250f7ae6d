"""The inputs of all blocks, kept while candidates are drawn: the backward pass of the update begins from them.

At the first update of an iteration the policy is still the one that drew the candidates, and its forward pass at the
trained pairs has been made already. So of the update's passes, forward, forward again and backward, the first is left
out. A pair takes the inputs of each block: 0.43 GiB for FLUX.1 at 512 pixels with 256 tokens of text.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any, NamedTuple

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..family import Keeper, Place
from ..storage.memory import blocks
from .checkpointing import second_pass, spared_in


class Inputs(NamedTuple):
    x: Tensor  # [n or none, tokens of the picture, dim]
    context: Tensor  # [n or none, tokens of the text, dim]


class Kept(Keeper):
    """Of some of the candidates at some of the calls. It keeps only what is `wanted`."""

    def __init__(self, transformer: FluxTransformer2DModel, wanted: Collection[Place]):
        self.transformer, self.wanted = transformer, frozenset(wanted)
        self._inputs: dict[Place, list[Inputs]] = {}  # of each block, and of the last norm

    def clear(self) -> None:
        self._inputs.clear()

    @contextmanager
    def filling(self, call: int, first: int, size: int) -> Iterator[None]:
        """Inside, the network is passed once, without gradient, by the candidates `first` to `first + size`."""
        rows = {n - first: (call, n) for n in range(first, first + size) if (call, n) in self.wanted}
        self._inputs |= {place: [] for place in rows.values()}

        def keep(x: Tensor, context: Tensor) -> None:
            for row, place in rows.items():
                self._inputs[place].append(Inputs(x[row].clone(), context[row].clone()))

        with seen(self.transformer, keep) if rows else nullcontext():
            yield

    @contextmanager
    def used(self, places: Sequence[Place]) -> Iterator[None]:
        """Inside, the network is passed once, with gradient, by the candidates at these places, in this order."""
        numbers, usual = count(), self.transformer._gradient_checkpointing_func
        # without an input that takes a gradient a function's outputs have no history
        history = torch.empty(0, requires_grad=True, device=self.transformer.x_embedder.weight.device)

        def resume(block: nn.Module, x: Tensor, context: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
            rows = [*places, *[places[-1]] * (len(x) - len(places))]  # a short batch may be filled up with its last row
            return _Resumed.apply(history, x, context, _Turn(self, rows, next(numbers)), block, others)

        self.transformer._gradient_checkpointing_func = resume
        try:
            yield
        finally:
            self.transformer._gradient_checkpointing_func = usual

    def of(self, places: Sequence[Place], number: int) -> Inputs:
        """The inputs of a block, by its number, as the network is passed by these places together."""
        found = [self._inputs[place][number] for place in places]
        return Inputs(*(torch.stack(parts) for parts in zip(*found, strict=True)))


@contextmanager
def seen(transformer: FluxTransformer2DModel, look: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Inside, `look` is shown each block's inputs, and the last norm's without text, in calls without gradient.

    Not by hooks: with them a compiled block would be compiled once more.
    """

    def shown(block: nn.Module) -> Callable[..., Any]:
        call = block._compiled_call_impl or block._call_impl

        def wrapped(**named: Any) -> Any:
            look(named["hidden_states"], named["encoder_hidden_states"])
            return call(**named)

        return wrapped

    def at_the_end(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        look(inputs[0], inputs[0][:, :0])

    usual = {block: block._compiled_call_impl for block in blocks(transformer)}
    hook = transformer.norm_out.register_forward_pre_hook(at_the_end)
    try:
        for block in usual:
            block._compiled_call_impl = shown(block)
        yield
    finally:
        hook.remove()
        for block, call in usual.items():
            block._compiled_call_impl = call


class _Turn(NamedTuple):
    kept: Kept
    places: Sequence[Place]
    number: int  # of the block


class _Resumed(torch.autograd.Function):  # whose ctx takes any attribute
    """A block whose forward pass has been made: only the last one's output is needed once more."""

    @staticmethod
    def forward(
        ctx: Any, history: Tensor, x: Tensor, context: Tensor, turn: _Turn, block: nn.Module, others: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        ctx.turn, ctx.block, ctx.others = turn, block, others
        ctx.set_materialize_grads(False)
        kept, places, number = turn
        if number + 1 == len(blocks(kept.transformer)):
            return _nothing(context), kept.of(places, number + 1).x
        return _nothing(context), _nothing(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, places, number = ctx.turn
        inputs = kept.of(places, number)
        for tensor, needed in zip(inputs, ctx.needs_input_grad[1:3], strict=True):
            tensor.requires_grad_(needed)
        with torch.enable_grad(), second_pass(spared_in(ctx.block, inputs.x, ctx.others[0])):
            outputs = ctx.block(*inputs, *ctx.others)
        asked = [(output, g) for output, g in zip(outputs, gradients, strict=True) if g is not None]
        torch.autograd.backward([output for output, _ in asked], [g for _, g in asked])
        return None, inputs.x.grad, inputs.context.grad, None, None, None


def _nothing(like: Tensor) -> Tensor:
    """NaN, without memory of its own: so it shows if somebody needs it after all."""
    return like.new_full((), math.nan).expand(like.shape)
