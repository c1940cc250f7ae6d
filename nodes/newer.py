"""What newer ComfyUIs can show and older ones do without."""

from typing import TypeVar

from comfy_api.latest import io

Input = TypeVar("Input", bound=io.Input)


def searched_by(*words: str) -> dict[str, list[str]]:
    """What finds a node besides its name, as an argument for io.Schema. Few words: other packs share the search."""
    known = "search_aliases" in io.Schema.__dataclass_fields__
    return {"search_aliases": list(words)} if known else {}


def rare(*inputs: Input) -> list[Input]:
    """The inputs, now behind "Show advanced inputs"; a ComfyUI before 0.10 shows them like all others."""
    for entry in inputs:
        entry.advanced = True
    return list(inputs)
