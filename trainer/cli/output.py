"""What a command prints."""

import json
from typing import Any


def say(text: str, *, quiet: bool = False) -> None:
    if not quiet:
        print(text, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
