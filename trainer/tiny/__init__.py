"""The embedded model: a small FLUX and two small CLIPs that ship with the project. See README.md in this folder."""

from pathlib import Path

_HERE = Path(__file__).parent
FLUX = _HERE / "flux"  # a diffusers folder, 64 x 64 pixels
CLIP = _HERE / "clip"  # the reward that is trained on
CLIP_HELD_OUT = _HERE / "clip-heldout"  # the reward that only watches
SIZE = 64  # pixels
TEXT_TOKENS = 32
