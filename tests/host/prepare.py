"""Install what the tests in this folder run against, as far as possible: a ComfyUI and a browser.

Always succeeds: the tests themselves say what is missing, by skipping, or by failing where CI is set.
"""

import sys

import browser
import comfy_install
from comfy_install import HostError


def say(text: str) -> None:
    print(f"tests/host: {text}", file=sys.stderr, flush=True)


def main() -> None:
    for name, part in (("ComfyUI", comfy_install), ("browser", browser)):
        try:
            part.install(say)
        except HostError as problem:
            say(f"no {name} to test with: {problem}")


if __name__ == "__main__":
    main()
