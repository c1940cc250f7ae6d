"""HTML whose texts are escaped by construction."""

from html import escape


class Markup(str):
    """Text that is HTML already."""


VOID = ("img", "meta", "br")


def h(tag: str, *children: object, **attributes: object) -> Markup:
    """One element. Strings are escaped, None and False left out; `class_` is class, `font_size` is font-size."""
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        if value is not None and value is not False:
            parts.append(f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"')
    parts.append(">")
    if tag not in VOID:
        parts += [together(*children), f"</{tag}>"]
    return Markup("".join(parts))


def together(*children: object) -> Markup:
    """Elements and texts, one after the other; lists are unfolded."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, (list, tuple)):
            parts.append(together(*child))
        elif child is not None and child is not False:
            parts.append(child if isinstance(child, Markup) else escape(str(child)))
    return Markup("".join(parts))
