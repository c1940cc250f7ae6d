"""What newer ComfyUIs can show and older ones do without."""

from collections.abc import Callable
from inspect import signature
from typing import Any, TypeVar

from comfy_api.latest import io

Input = TypeVar("Input", bound=io.Input)


def where_known(maker: Callable[..., object], **arguments: object) -> dict[str, Any]:
    """Those of the arguments that `maker` has in this ComfyUI."""
    return {name: value for name, value in arguments.items() if name in signature(maker).parameters}


def searched_by(*words: str) -> dict[str, Any]:
    """What finds a node besides its name, as an argument for io.Schema. Few words: other packs share the search."""
    return where_known(io.Schema, search_aliases=list(words))


def rare(*inputs: Input) -> list[Input]:
    """The inputs, now behind "Show advanced inputs"; a ComfyUI before 0.10 shows them like all others."""
    for entry in inputs:
        entry.advanced = True
    return list(inputs)
