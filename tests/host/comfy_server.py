"""A real ComfyUI in a process of its own, driven over HTTP like the frontend drives it."""

import functools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy_base
import comfy_install
from comfy_install import ROOT, HostError
from patience import GUARD

PACK = {"neighbor-grpo": ROOT}
ADDRESS = "127.0.0.1"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's servers

LEVEL = re.compile(r"(\x1b\[\d*m)+(\[[A-Z]+\]\x1b\[0m )?")


class ExecutionError(HostError):
    """A prompt that ComfyUI refused or that failed in a node; the message is the node's."""


class ExecutionInterrupted(ExecutionError):
    """A prompt that was cancelled."""


class ComfyServer:
    """Runs while the `with` block does, on 127.0.0.1 with a base directory of its own.

    Args:
        comfyui: the folder with main.py.
        packs: name in custom_nodes -> folder, linked and not copied. The name becomes part of the pack's web address.
        base: models, input, output and settings live here; None makes one that goes with the server.
        port: wanted port; if it is taken, or 0, a free one.
        echo: ComfyUI's log goes to the terminal, not to `log()`.
        arguments: more of ComfyUI's command line.
        environment: more environment variables.
    """

    def __init__(
        self,
        comfyui: Path,
        packs: Mapping[str, Path],
        *,
        base: Path | None = None,
        port: int = 0,
        echo: bool = False,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ):
        self._scratch = None if base else tempfile.TemporaryDirectory(prefix="comfyui-", ignore_cleanup_errors=True)
        self.base = Path(base or self._scratch.name).resolve()
        self.url = f"http://{ADDRESS}:{_free_port(port)}"
        self.startup_seconds = 0.0
        self._comfyui, self._packs, self._echo, self._arguments = comfyui, packs, echo, arguments
        self._environment = {"PYTHONUNBUFFERED": "1", **(environment or {})}
        self._log = Path(os.devnull) if echo else self.base / "comfyui.log"
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "ComfyServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- its life

    def start(self) -> "ComfyServer":
        """Returns when ComfyUI answers.

        Raises:
            HostError: it ended, or hangs; with the end of its log.
        """
        comfy_base.prepare(self.base, self._packs)
        command, env = self._command(), {**os.environ, **self._environment}
        begun = time.monotonic()
        try:
            with open(self._log, "wb") as log:
                output = None if self._echo else log
                self._process = subprocess.Popen(command, cwd=self.base, env=env, stdout=output, stderr=output)
            while not self._answers():
                if self._process.poll() is not None:
                    raise HostError(f"ComfyUI ended with exit code {self._process.returncode}{self._log_tail()}")
                if time.monotonic() - begun > GUARD:
                    raise HostError(f"ComfyUI was not ready after {GUARD} s{self._log_tail()}")
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise
        self.startup_seconds = time.monotonic() - begun
        return self

    def stop(self) -> None:
        """End this server's process and no other."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._scratch:
            self._scratch.cleanup()

    def join(self) -> int:
        """Wait until ComfyUI ends by itself; its exit code."""
        return self._process.wait()

    def log(self, start: int = 0) -> str:
        """What ComfyUI printed after `start` bytes, without the coloured levels that newer ones put before it."""
        return LEVEL.sub("", self._log.read_bytes()[start:].decode(errors="replace"))

    def _command(self) -> list[str]:
        main, port = self._comfyui / "main.py", self.url.rpartition(":")[2]
        options = f"--listen {ADDRESS} --port {port} --database-url sqlite:///:memory: --disable-api-nodes".split()
        device = [] if sees_cuda() else ["--cpu"]
        options += ["--base-directory", str(self.base), *device, *comfy_install.frontend(), *self._arguments]
        return [sys.executable, str(main), *options]

    def _answers(self) -> bool:
        try:
            return DIRECT.open(self.url + "/system_stats", timeout=5).status == 200
        except OSError:
            return False

    def _log_tail(self) -> str:
        return "" if self._echo else "; the end of its log:\n" + "\n".join(self.log().splitlines()[-20:])

    # ---- its routes

    def get(self, path: str) -> Any:
        """The JSON behind a route, such as "/object_info"."""
        return self._request(path, None)

    def post(self, path: str, data: Any) -> Any:
        """Send `data` as JSON; the JSON that comes back, None for an empty answer."""
        return self._request(path, json.dumps(data).encode())

    def queue(self, prompt: Mapping[str, Any]) -> str:
        """Queue a graph in ComfyUI's API format ({id: {"class_type", "inputs"}}); its prompt id.

        Raises:
            ExecutionError: ComfyUI finds the graph invalid; with every complaint.
        """
        return self.post("/prompt", {"prompt": prompt})["prompt_id"]

    def wait(self, prompt_id: str) -> dict[str, Any]:
        """The history entry ("outputs", "status") of a prompt, once it is done.

        Raises:
            ExecutionInterrupted: it was cancelled.
            ExecutionError: a node failed; with the message of its exception.
            HostError: it hangs.
        """
        deadline = time.monotonic() + GUARD
        while not (entry := self.get(f"/history/{prompt_id}").get(prompt_id)):
            if time.monotonic() > deadline:
                raise HostError(f"prompt {prompt_id} was not done after {GUARD} s{self._log_tail()}")
            time.sleep(0.1)
        for event, details in entry["status"]["messages"]:
            where = f"{details.get('node_type')} (node {details.get('node_id')})"
            if event == "execution_interrupted":
                raise ExecutionInterrupted(f"{where}: interrupted")
            if event == "execution_error":
                raise ExecutionError(f"{where}: {details['exception_type']}: {details['exception_message'].strip()}")
        return entry

    def interrupt(self) -> None:
        """Cancel the prompt that runs now, like the frontend's button."""
        self.post("/interrupt", {})

    def _request(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"} if body else {})
        try:
            with DIRECT.open(request, timeout=GUARD) as reply:
                answer = reply.read()
        except urllib.error.HTTPError as error:
            kind = ExecutionError if path == "/prompt" else HostError
            raise kind(f"{path}: HTTP {error.code}: {_complaints(error.read())}") from None
        except OSError as error:
            raise HostError(f"ComfyUI does not answer {path}: {error}{self._log_tail()}") from None
        return json.loads(answer) if answer else None


def _complaints(body: bytes) -> str:
    """Of a refused prompt: every complaint with its node. Of any other answer: its text."""
    try:
        answer = json.loads(body)
        nodes = answer["node_errors"].items()
        return "; ".join(
            f"{node['class_type']} (node {name}): {error['message']}: {error['details']}"
            for name, node in nodes
            for error in node["errors"]
        ) or str(answer["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return body.decode(errors="replace").strip()


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        try:
            with socket.create_server((ADDRESS, port)) as probe:
                return probe.getsockname()[1]
        except OSError:  # taken
            continue
    raise HostError(f"no free port on {ADDRESS}: end a program that listens on one")


@functools.cache
def sees_cuda() -> bool:
    """Asked in a process of its own, as torch would stay in this one's memory."""
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], capture_output=True).returncode == 0
