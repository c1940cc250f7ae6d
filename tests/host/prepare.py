"""Install what the tests run against, as far as possible: ComfyUI, the newest frontend, a browser, a type checker.

Always succeeds: the tests themselves say what is missing, by skipping, or by failing where CI is set.
"""

import sys

import browser
import comfy_install
import newest_frontend
import typescript
from comfy_install import HostError


def say(text: str) -> None:
    print(f"tests/host: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parts = {"ComfyUI": comfy_install, "frontend": newest_frontend, "browser": browser, "TypeScript": typescript}
    for name, part in parts.items():
        try:
            part.install(say)
        except HostError as problem:
            say(f"no {name} to test with: {problem}")


if __name__ == "__main__":
    main()
