"""`python -m trainer export RUN -o report.html`: one run as one page."""

import argparse
from pathlib import Path

from ..errors import UserError
from ..files import written_whole
from ..report.page import report
from ..store.database import DATABASE
from .output import print_json, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default: report.html")


def main(arguments: argparse.Namespace) -> int:
    folder = arguments.run.resolve()
    if not (folder / DATABASE).is_file():
        raise UserError(f"{arguments.run} is no run: there is no {DATABASE} in it")
    page = report(folder)
    try:
        with written_whole(arguments.output) as path:
            path.write_text(page, "utf-8")
    except OSError as error:
        raise UserError(f"{arguments.output} cannot be written ({error.strerror})") from error
    size = arguments.output.stat().st_size
    if arguments.json:
        print_json({"report": str(arguments.output), "bytes": size})
    else:
        say(f"{arguments.output}: {size / 1e6:.1f} MB")
    return 0
