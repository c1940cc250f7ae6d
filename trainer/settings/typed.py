"""Plain data as one section of settings: keys that exist, values of the right type, nothing missing."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import ConfigError, brief
from .described import require

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def parse_section(cls: type, table: Any, where: str) -> Any:
    """One settings object from a table: known keys, right types, nothing missing."""
    require(isinstance(table, Mapping), where, table, f"must be a section: [{where}]")
    hints = get_type_hints(cls)
    types = {f.name: hints[f.name] for f in fields(cls)}
    known_keys(table, types, f"key of [{where}]")
    for key, value in table.items():
        check_type(value, types[key], f"{where}.{key}")
    for f in fields(cls):
        needed = f.default is MISSING and f.default_factory is MISSING
        require(not needed or f.name in table, f"{where}.{f.name}", None, "is needed")
    return cls(**{k: _exact(v, types[k]) for k, v in table.items()})


def _exact(value: Any, expected: Any) -> Any:
    """The value in the field's own type: TOML writes 1 for 1.0 and a list for a tuple."""
    if get_origin(expected) is tuple:
        return tuple(_exact(v, get_args(expected)[0]) for v in value)
    return float(value) if expected is float else value


def check_type(value: Any, expected: Any, where: str) -> None:
    """Raises ConfigError if the value is not of the type, as TOML writes it."""
    allowed = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    if get_origin(expected) is tuple:
        _check_list(value, get_args(expected)[0], where)
    elif allowed[0] in WORDS:
        fits = type(value) in allowed or (float in allowed and type(value) is int)
        require(fits, where, value, f"must be {' or '.join(WORDS[t] for t in allowed)}")
        check_number(value, where)
        require(not isinstance(value, float) or math.isfinite(value), where, value, "must be a finite number")
    else:
        require(isinstance(value, Mapping), where, value, "must be a table")
        for key, one in value.items():
            check_plain(one, f"{where}.{key}")


def check_plain(value: Any, where: str) -> None:
    """Raises ConfigError for what JSON has not, such as a date: it could not be stored."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            check_plain(one, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            check_plain(one, f"{where}.{i}")
    else:
        require(value is None or type(value) in WORDS, where, value, "must be text, a number, true or false")
        check_number(value, where)


def check_number(value: Any, where: str) -> None:
    """Raises ConfigError for NaN, and for a whole number that no computer's integer holds."""
    require(not isinstance(value, float) or not math.isnan(value), where, value, "must be a number")
    whole = isinstance(value, int)
    require(not whole or -(2**63) <= value < 2**64, where, value, "must have at most 64 bits")


def _check_list(value: Any, inner: Any, where: str) -> None:
    known = {str: ((str,), "texts"), int: ((int,), "whole numbers"), float: ((int, float), "numbers")}
    kinds, words = known.get(inner, ((list, tuple), "lists"))
    fits = isinstance(value, list | tuple) and all(type(v) in kinds for v in value)
    require(fits, where, value, f"must be a list of {words}")
    for v in value:
        check_number(v, where)
    if get_origin(inner) is tuple:
        for i, v in enumerate(value):
            check_type(v, inner, f"{where}.{i}")


def known_keys(table: Mapping[str, Any], known: Any, what: str) -> None:
    """Raises ConfigError if one of the table's keys is not known."""
    for key in table:
        known_key(key, known, what)


def known_key(key: str, known: Any, what: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"{brief(key)} is no {what}: {hint}")
