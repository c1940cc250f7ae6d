"""What a command prints."""

import json
from operator import methodcaller
from typing import Any


def say(text: str, *, quiet: bool = False) -> None:
    if not quiet:
        print(text, flush=True)


def print_json(value: Any) -> None:
    """Objects in it are what their `to_dict` says."""
    print(json.dumps(value, indent=2, default=methodcaller("to_dict")))
