"""`python -m trainer reward-server --config rewards.toml --port N`"""

import argparse
import asyncio
import os
from pathlib import Path

from ..errors import ConfigError
from ..reward_server.config import load_server_config
from ..rewards import check_weights
from ..serving import is_loopback
from ..texts import read_text
from .output import note, print_json, say

TOKEN_BYTES = 2**16
TOKEN = "NEIGHBOR_GRPO_REWARD_TOKEN"
EPILOG = f"""\
A config names the rewards as a run's does, and may set limits:

  [[rewards]]
  kind = "colourfulness"

  [[rewards]]
  kind = "pickscore"            # its weights are looked for in models/rewards, or by options.path

  [server]                      # all of it optional; these are the defaults
  device = "auto"               # or "cpu", "cuda", "cuda:1"
  max_images = 64               # of a request
  max_pixels = 4194304          # of a picture
  max_bytes = 268435456         # of a request's body
  queue_requests = 256          # accepted and not answered; more get 429
  queue_bytes = 536870912       # of their bodies, as they come; more get 429
  batch_size = 32               # pictures scored at once
  batch_pixels = 16777216       # decoded and scored at once
  batch_window = 0.005          # seconds that a batch waits to be filled
  connections = 512             # the one that is idle longest makes room
  client_connections = 256      # of one address

A run scores there by

  [[rewards]]
  kind = "remote"
  options = {{ url = "http://127.0.0.1:8190", reward = "pickscore", token_env = "{TOKEN}" }}

Or by hand: pictures of 8 bits, so that the scores are those of the rounded picture.

  curl -F 'request={{"prompts": ["a cat"], "rewards": ["pickscore"]}}' \\
       -F 'images=@cat.png;type=image/png' http://127.0.0.1:8190/v1/score

SIGTERM and Ctrl-C finish what was accepted, then end; a second one ends at once.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--config", type=Path, required=True, metavar="REWARDS.toml")
    parser.add_argument("--port", type=int, default=8190, help="default: 8190; 0 takes a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only; 0.0.0.0 is every network"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"requests must bear the token in this file; default: the one in the environment variable {TOKEN}, if any",
    )


def main(arguments: argparse.Namespace) -> int:
    rewards, settings = load_server_config(arguments.config)
    token = read_token(arguments.token_file)
    for reward in rewards:
        check_weights(reward.kind, reward.options)
    from ..device import pick_device
    from ..reward_server.app import Service
    from ..reward_server.serve import serve
    from ..rewards import build

    device = pick_device(settings.device)
    built = {r.label: build(r.kind, r.options, device) for r in rewards}
    kinds = {r.label: r.kind for r in rewards}

    def ready(url: str) -> None:
        if not token and not is_loopback(arguments.host):
            note(f"warning: anyone who reaches {url} may score: set a token")
        if arguments.json:
            print_json({"url": url, "rewards": list(built)})
        else:
            say(f"{', '.join(built)}: {url} (requests take at most {settings.memory / 2**30:.1f} GiB of memory)")

    make = lambda: Service(built, kinds, settings, device=device, token=token)  # noqa: E731
    asyncio.run(serve(make, arguments.host, arguments.port, ready))
    return 0


def read_token(path: Path | None) -> str:
    if path is None:
        return os.environ.get(TOKEN, "").strip()
    try:
        token = read_text(path, TOKEN_BYTES).strip()
    except ConfigError as error:
        raise ConfigError(f"--token-file {error}") from error
    if not token:
        raise ConfigError(f"--token-file {path}: is empty")
    if not (token.isascii() and token.isprintable() and " " not in token):  # no header carries it
        raise ConfigError(f"--token-file {path}: must hold one token of ASCII characters without spaces")
    return token
