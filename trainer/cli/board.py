"""`python -m trainer board RUNS_DIR [--port N]`: the panel in a browser, without ComfyUI."""

import argparse
import asyncio
from pathlib import Path

from ..board.app import serve
from ..serving import is_loopback
from .output import note, print_json, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR", help="the folder that the runs' folders lie in")
    parser.add_argument("--port", type=int, default=8191, help="default: 8191; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")


def main(arguments: argparse.Namespace) -> int:
    def ready(url: str) -> None:
        if not is_loopback(arguments.host):
            note(f"warning: anyone who reaches {url} sees the runs, and may rename and delete them")
        if arguments.json:
            print_json({"url": url, "runs": str(arguments.runs)})
        else:
            say(f"{arguments.runs}: {url}")

    asyncio.run(serve(arguments.runs, arguments.host, arguments.port, ready))
    return 0
