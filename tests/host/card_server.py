"""ComfyUI on the card made of the CPU: see card_main.py."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiny_files
from comfy_server import PACK, ComfyServer, HostError
from PIL import Image

HERE = Path(__file__).parent
MAIN = HERE / "card_main.py"
PACKS = PACK | {name: HERE / name for name in ("tiny_flux_shim", "probe", "card_pack")}
PATIENCE = 300  # seconds that something may take which will come


class CardServer(ComfyServer):
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
        deadline = time.monotonic() + PATIENCE
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

    def emptied(self) -> int:
        """Bytes on the card once ComfyUI has unloaded its models and forgotten what its nodes made."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        for _ in range(2):  # what was asked is done after the prompt that runs or the next one, before another begins
            self.wait(self.queue({"1": {"class_type": "PreviewAny", "inputs": {"source": str(time.monotonic())}}}))
        state = self.get("/card/state?collected=1")
        assert not state["loaded"], state
        return state["live"]


def started(comfyui: Path, base: Path, **options: Any) -> Iterator[CardServer]:
    """For a fixture `server`: with small FLUX files, and a picture and its mask in the input folder.

    At the end no two streams have touched the same memory without a wait between them.
    """
    own_locks = {"TMPDIR": str(base)}
    with CardServer(comfyui, PACKS, base=base, environment=own_locks, **options) as running:
        tiny_files.write(base / "models")
        rows, columns = np.mgrid[0:64, 0:64] * 4
        Image.fromarray(np.stack([columns, rows, 0 * rows + 60], -1).astype(np.uint8)).save(base / "input/init.png")
        mask = Image.new("RGB", (64, 64))
        mask.paste((255, 255, 255), (16, 16, 48, 48))
        mask.save(base / "input/mask.png")
        yield running
        assert running.card()["races"] == 0
