"""ComfyUI on the card made of the CPU: see card_main.py."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tiny_files
from comfy_server import PACK, HostError
from patience import GUARD, until
from PIL import Image
from shared_server import HERE, TEST_PACKS, SharedServer

MAIN = HERE / "card_main.py"
PACKS = PACK | TEST_PACKS | {"card_pack": HERE / "card_pack"}


class CardServer(SharedServer):
    """A ComfyServer whose models, and ours, are on the card."""

    def _command(self) -> list[str]:
        _, main, *arguments = super()._command()
        return [sys.executable, str(MAIN), str(Path(main).parent), *(a for a in arguments if a != "--cpu")]

    @property
    def maps(self) -> Path:
        """Linux's list of what the process has mapped."""
        return Path(f"/proc/{self._process.pid}/maps")

    def card(self) -> dict[str, Any]:
        """See `card_pack.state`."""
        return self.get("/card/state")

    def until(self, seen, what: str) -> dict[str, Any]:
        """The card's state as soon as `seen(state)` holds.

        Raises:
            HostError: it does not come to that.
        """
        deadline = time.monotonic() + GUARD
        while not seen(state := self.card()):
            if time.monotonic() > deadline:
                raise HostError(f"{what} did not come: {state}{self._log_tail()}")
            time.sleep(0.02)
        return state

    def computing(self, node: str) -> None:
        """Wait until the graph's `node` runs and has the card compute."""
        begun = self.until(lambda state: node in state["nodes"], f"node {node}")["taken"]
        state = self.until(lambda state: node not in state["nodes"] or state["taken"] > begun + 200, "its work")
        assert node in state["nodes"], f"node {node} was over too soon"

    def until_left(self, live: int) -> None:
        """Wait until no more than `live` bytes are left on the card: threads and exceptions let go a little later."""
        until(lambda: self.live() <= live, lambda: f"more than {live} bytes stay on the card: {self.card()}")

    def live(self) -> int:
        """Bytes on the card once Python's garbage is gone."""
        return self.get("/card/state?collected=1")["live"]

    def emptied(self) -> int:
        """Bytes on the card once ComfyUI has unloaded its models and forgotten what its nodes made."""
        self.forget()
        state = self.get("/card/state?collected=1")
        assert not state["loaded"], state
        return state["live"]


def write_inputs(base: Path) -> None:
    """Small FLUX files, and a picture and its mask in the input folder."""
    tiny_files.write(base / "models")
    rows, columns = np.mgrid[0:64, 0:64] * 4
    Image.fromarray(np.stack([columns, rows, 0 * rows + 60], -1).astype(np.uint8)).save(base / "input/init.png")
    mask = Image.new("RGB", (64, 64))
    mask.paste((255, 255, 255), (16, 16, 48, 48))
    mask.save(base / "input/mask.png")
