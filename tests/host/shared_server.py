"""A ComfyUI for several modules of tests: each finds it as if it had just been started."""

import shutil
import time
from pathlib import Path

import comfy_base
from comfy_server import ComfyServer

RENEWED = ("models", "input", "output", "temp", "user")  # in its base directory
HERE = Path(__file__).parent
TEST_PACKS = {name: HERE / name for name in ("tiny_flux_shim", "probe")}


class SharedServer(ComfyServer):
    """With the pack `probe` in it.

    Attributes:
        start_log: what it printed until it answered.
        start_modules: names of the Python modules that it had imported by then.
    """

    def start(self) -> "SharedServer":
        self._seen = 0  # bytes of the log that are of modules before this one
        super().start()
        self.start_log, self.start_modules = self.log(), set(self.get("/probe/modules"))
        return self

    def log(self) -> str:
        """What it printed since it was renewed."""
        return super().log(self._seen)

    def renew(self) -> None:
        """Forget models, pictures, runs and settings, in memory and on disk."""
        self.forget()
        self.post("/history", {"clear": True})
        for name in RENEWED:
            shutil.rmtree(self.base / name, ignore_errors=True)
        comfy_base.prepare(self.base, self._packs)
        self._seen = self._log.stat().st_size

    def forget(self) -> None:
        """Unload the models and drop what nodes have made."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        self.pause()

    def pause(self) -> None:
        """Until what was asked of /free is done: after the prompt that runs or the next one, before another begins."""
        for _ in range(2):
            self.wait(self.queue({"1": {"class_type": "PreviewAny", "inputs": {"source": str(time.monotonic())}}}))
