"""The command line: `python -m trainer train CONFIG.toml`, `sample`, `board`, `export`, `demo`, `bench`, ..."""

import argparse
import sys
from importlib import import_module

from .errors import UserError

COMMANDS = {
    "train": "train a LoRA as a TOML file says",
    "sample": "pictures before and after, side by side",
    "board": "look at runs in a browser",
    "export": "one run as one page, to keep or to send",
    "demo": "train the embedded model for two minutes, compare before and after",
    "plan": "memory and cost of a run, before it runs: needs no GPU and no weights",
    "bench": "measure the engine",
    "reward-server": "score pictures for other processes and machines, over HTTP",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code (2 for what the user can put right)."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__.split(":")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    names = {name: commands.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}
    wanted = next((a for a in (sys.argv[1:] if argv is None else argv) if a in names), None)
    module = None
    if wanted:  # one command's libraries only: --help answers at once
        module = import_module(f".cli.{wanted.replace('-', '_')}", __package__)
        names[wanted].add_argument(
            "--json", action="store_true", help="print one JSON object on stdout, and nothing else"
        )
        module.add_arguments(names[wanted])
    arguments = parser.parse_args(argv)
    try:
        return module.main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the second Ctrl-C: the last checkpoint is what remains
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
