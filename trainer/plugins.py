"""A class that a setting names as "package.module:Class": a user's own, from the working directory or installed.

`look` reads its source and runs none of it, so that a mistake is answered at once; `load` imports it.
"""

import ast
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

from .errors import ConfigError, brief

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Outline:
    """The options of a class or function: its arguments by name."""

    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # those without a default
    more: bool = False  # takes any other name too; or its source does not tell

    def misfit(self, options: Iterable[str]) -> str:
        """What is wrong with these names; empty if nothing is."""
        options = {*options}
        if strange := sorted(options - {*self.takes}) if not self.more else []:
            return f"takes no option {brief(strange[0])}: it takes {', '.join(self.takes) or 'none'}"
        missing = [name for name in self.needs if name not in options]
        return f"needs the option {brief(missing[0])}" if missing else ""


HIDDEN = Outline(more=True)


def is_own(name: str) -> bool:
    """Whether a setting names a class in this way, and not one of the project's own kinds."""
    return ":" in name


def load(name: str, method: str = "") -> Callable[..., Any]:
    """Import what `name` says; `method` is one that it must have.

    Raises:
        ConfigError: there is no such module or class, the module does not import, or the method is missing.
    """
    module, attribute = _split(name)
    _find(name, module)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:
        raise _broken(name, module, error) from error
    if not callable(found):
        raise ConfigError(f"{brief(name)}: the module {module} has no class {attribute}: correct the name")
    if method and not callable(getattr(found, method, None)):
        raise _lacks(name, method)
    return found


def look(name: str, method: str = "") -> Outline:
    """The outline of what `name` says, by its source alone; only the packages around its module are imported.

    A class that inherits or is decorated hides some of it: `load` and `outline_of` tell the rest.

    Raises:
        ConfigError: as `load`, as far as the source tells.
    """
    module, attribute = _split(name)
    spec = _find(name, module)
    try:
        source = getattr(spec.loader, "get_source", lambda _: None)(module)
        tree = ast.parse(source or "")
    except (SyntaxError, ImportError) as error:
        raise _broken(name, module, error) from error
    if not source:  # compiled
        return HIDDEN
    if not {attribute, "*"} & _names(tree) and not _definition(tree, "__getattr__"):
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        raise ConfigError(
            f"{brief(name)}: the module {module} has no class {attribute}: it has {', '.join(classes) or 'none'}"
        )
    node = _definition(tree, attribute)
    plain = isinstance(node, ast.ClassDef) and not (node.bases or node.keywords or node.decorator_list)
    whole = node if plain else None
    if method and whole and not {method, "__getattr__"} & _names(whole):
        raise _lacks(name, method)
    return _outline(node)


def outline(source: str, name: str) -> Outline:
    """Of the class or function `name` at the top level of a source."""
    return _outline(_definition(ast.parse(source), name))


def outline_of(thing: Callable[..., Any]) -> Outline:
    """Of a class or function that is imported."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):  # some of those written in C tell nothing
        return HIDDEN
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needs = tuple(p.name for p in named if p.default is p.empty)
    return Outline(tuple(p.name for p in named), needs, any(p.kind == p.VAR_KEYWORD for p in parameters))


def _split(name: str) -> tuple[str, str]:
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ConfigError(f"{brief(name)} names no class: write it as 'package.module:Class'")
    return module, attribute


def _find(name: str, module: str) -> ModuleSpec:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        spec = find_spec(module)
    except ValueError:  # a module that came from no file, such as __main__
        spec = None
    except Exception as error:
        around = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        if not around:  # a package around it is there and does not import
            raise _broken(name, module, error) from error
        spec = None
    if spec is None:
        raise ConfigError(f"{brief(name)}: there is no module {module} in {here} or among the installed packages")
    return spec


def _names(tree: ast.AST) -> set[str]:
    """Every name that occurs in it, and "*" if it takes all of another module's."""
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    return names | {n.name for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}


def _definition(tree: ast.Module, name: str) -> Definition | None:
    return next((n for n in reversed(tree.body) if isinstance(n, Definition) and n.name == name), None)


def _outline(node: Definition | None) -> Outline:
    if node is None or node.decorator_list:
        return HIDDEN
    if isinstance(node, ast.FunctionDef):
        return _taken(node.args)
    own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name in ("__init__", "__new__")]
    if node.keywords or len(own) > 1 or (own and own[0].decorator_list):
        return HIDDEN
    if own:
        return _taken(own[0].args, skip=1)
    return HIDDEN if node.bases else Outline()


def _taken(arguments: ast.arguments, skip: int = 0) -> Outline:
    """Of a definition's arguments, without the first one if `skip` is 1: self."""
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    required = names[skip : len(names) - len(arguments.defaults)]
    alone = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    required += [a.arg for a, default in alone if default is None]
    takes = (*names[skip:], *(a.arg for a in arguments.kwonlyargs))
    return Outline(takes, tuple(required), bool(arguments.kwarg))


def _lacks(name: str, method: str) -> ConfigError:
    return ConfigError(f"{brief(name)}: the class has no method {method}: it needs one")


def _broken(name: str, module: str, error: Exception) -> ConfigError:
    """With the line in the user's file, as nobody sees the traceback."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    *_, last = traceback.extract_tb(error.__traceback__)
    where = "" if last.filename == __file__ else f", {last.filename} line {last.lineno}"
    return ConfigError(f"{brief(name)}: the module {module} does not import ({reason}{where}): correct it")
