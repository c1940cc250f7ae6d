"""Install what the tests run against, as far as possible: a ComfyUI, a browser, a type checker for JavaScript.

Always succeeds: the tests themselves say what is missing, by skipping, or by failing where CI is set.
"""

import sys

import browser
import comfy_install
import typescript
from comfy_install import HostError


def say(text: str) -> None:
    print(f"tests/host: {text}", file=sys.stderr, flush=True)


def main() -> None:
    for name, part in (("ComfyUI", comfy_install), ("browser", browser), ("TypeScript", typescript)):
        try:
            part.install(say)
        except HostError as problem:
            say(f"no {name} to test with: {problem}")


if __name__ == "__main__":
    main()
