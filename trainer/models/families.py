"""The families there are: a folder of `models/` each, and a line in `choices`."""

from importlib import import_module

from ..choices import AUTO, FAMILIES
from ..plugins import is_own, load
from .family import Family
from .files.source import ModelSource


def family_of(source: ModelSource, name: str = AUTO) -> Family:
    """The family of a model: the one that is named, or the first that recognises it.

    If none does it is the first of all, whose loader says what is wrong.

    Args:
        name: a key of FAMILIES, "package.module:Class" of the user's own, or "auto".

    Raises:
        ConfigError: see `plugins.load`.
    """
    if is_own(name):
        return load(name, "load")()
    if name != AUTO:
        return _made(name)
    families = [_made(name) for name in FAMILIES]
    return next((family for family in families if family.recognises(source)), families[0])


def _made(name: str) -> Family:
    module, _, cls = FAMILIES[name].partition(":")
    return getattr(import_module(f".{module}", __package__), cls)()
