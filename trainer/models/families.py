"""The families there are: a folder of `models/` each, and a line here."""

from importlib import import_module

from .family import Family
from .files.source import ModelSource

# module and class in this package, in the order in which they are asked
FAMILIES = {"flux1": "flux1.family:Flux1"}


def family_of(source: ModelSource) -> Family:
    """The first family that recognises the model; if none does, the first of all, whose loader says what is wrong."""
    families = [_made(name) for name in FAMILIES]
    return next((family for family in families if family.recognises(source)), families[0])


def _made(name: str) -> Family:
    module, _, cls = FAMILIES[name].partition(":")
    return getattr(import_module(f".{module}", __package__), cls)()
