"""The command line: `python -m trainer train CONFIG.toml`, `sample`, `board`, `export`, `demo`, `bench`, ..."""

import argparse
import logging
import sys
from importlib import import_module
from typing import NoReturn

from .cli.lasting import make_lasting, missing
from .cli.libraries import apart
from .cli.output import note, terminal
from .errors import UserError
from .faults import in_words, is_fault

COMMANDS = {
    "train": "train a LoRA as a TOML file says",
    "sample": "pictures before and after, side by side",
    "strength": "how strongly a run's LoRA should count",
    "board": "look at runs in a browser",
    "export": "one run as one page, to keep or to send",
    "demo": "train the embedded model for two minutes, compare before and after",
    "plan": "memory and cost of a run, before it runs: needs no GPU and no weights",
    "bench": "measure the engine",
    "experiment": "compare settings and methods at equal time",
    "reward-server": "score pictures for other processes and machines, over HTTP",
}


class Parser(argparse.ArgumentParser):
    """Names a mistake in one short line, below the usage."""

    def error(self, message: str) -> NoReturn:
        super().error(str(UserError(message)))


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code (2 for what the user can put right)."""
    return run(parse(argv))


def parse(argv: list[str]) -> argparse.Namespace:
    """What a command is asked for, and as `main` the command's own.

    Raises:
        SystemExit: --help, or a mistake, which is printed.
    """
    parser = Parser(prog="python -m trainer", description=__doc__.split(":")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    names = {name: commands.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}
    wanted = next((a for a in argv if a in names), None)
    if wanted:  # one command's modules only
        module = import_module(f".cli.{wanted.replace('-', '_')}", __package__)
        names[wanted].add_argument(
            "--json", action="store_true", help="print one JSON object on stdout, and nothing else"
        )
        module.add_arguments(names[wanted])
        names[wanted].set_defaults(main=module.main)
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> int:
    """A command imports torch and the like in its `main`, once all that is known without them has been checked."""
    try:
        return arguments.main(arguments)
    except UserError as error:
        note(f"error: {error}")
        return 2
    except Exception as error:
        if not is_fault(error):
            raise
        logging.getLogger("fault").error("%s", in_words(error), exc_info=True)  # for the log alone
        note(f"error: {in_words(error)}")
        return 2
    except KeyboardInterrupt:  # the second Ctrl-C: the iterations that were done are saved
        note("interrupted")
        return 130


if __name__ == "__main__":
    make_lasting()
    command = parse(sys.argv[1:])
    with apart():
        code = run(command)
        if full := missing(terminal.out):
            note(f"error: not all that was printed could be written ({full.strerror}): make room, then ask again")
            code = code or 2
    sys.exit(code)
