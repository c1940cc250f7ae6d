"""Which tests run in the same process when they are spread over several (pytest-xdist)."""

from pathlib import PurePosixPath

from xdist.scheduler import LoadFileScheduling

# files of tests/host -> whose ComfyUI they share; those of one ComfyUI run one after the other
SERVERS = {"test_card*.py": "the ComfyUI on the card", "test_*.py": "the ComfyUI"}
WITHOUT = ("test_demo.py", "test_docs_files.py", "test_lora_layouts.py")  # or with one of their own


class BesideComfyUI(LoadFileScheduling):
    """A file at a time, but those that share a ComfyUI together."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(super()._split_scope(nodeid))
        if file.parent.name != "host" or file.name in WITHOUT:
            return str(file)
        return next(server for pattern, server in SERVERS.items() if file.match(pattern))
