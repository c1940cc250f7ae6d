"""A real ComfyUI with this checkout as a pack, for `python dev.py comfy`; models and settings stay in .comfy/user.

usage: python dev.py comfy [--port PORT] [ComfyUI's own options, such as --lowvram]
"""

import argparse
import signal
import sys

import comfy_install
from comfy_install import HOME, HostError
from comfy_server import PACK, ComfyServer
from prepare import say


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py comfy", usage="%(prog)s [--port PORT] [ComfyUI's options]")
    parser.add_argument("--port", type=int, default=8188, help="a free one is taken instead if it is in use")
    own, others = parser.parse_known_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, with ComfyUI and not before it
    try:
        folder = comfy_install.install(say)
        say(f"starting {folder.name}; models and settings: {HOME / 'user'}")
        with ComfyServer(folder, PACK, base=HOME / "user", port=own.port, echo=True, arguments=others) as server:
            say(f"open {server.url} (Ctrl-C ends it)")
            return server.join()
    except HostError as problem:
        say(str(problem))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
