"""The server's settings: which rewards, on which device, and what a request may cost."""

from dataclasses import dataclass
from pathlib import Path

from ..choices import AUTO
from ..settings.config import RewardSettings
from ..settings.config_file import parse_rewards, read_table
from ..settings.described import Section, require, setting
from ..settings.learning import different_labels
from ..settings.typed import known_keys, parse_section

PIXEL_BYTES = 80  # 12 of a picture in float32, and the rest for its decoder and for what a reward computes of it
CONNECTION_BYTES = 2**20  # buffers


@dataclass(frozen=True)
class ServerSettings(Section, section="server"):
    """The defaults take 64 pictures of 1024 x 1024 as PNG, or 21 as float32, in one request."""

    device: str = setting(AUTO, "Where rewards are computed. auto: a CUDA GPU if there is one, the CPU if not.")
    max_images: int = setting(64, "The most pictures in a request.", unit="picture", least=1)
    max_pixels: int = setting(2048 * 2048, "The most pixels of a picture.", unit="pixel", least=1)
    max_bytes: int = setting(256 * 2**20, "The most bytes of a request's body.", unit="byte", least=1)
    queue_requests: int = setting(256, "The most requests that wait for their answer.", unit="request", least=1)
    queue_bytes: int = setting(
        2**29, "The most bytes that these hold: their bodies as they came, and those on their way.", unit="byte"
    )
    batch_size: int = setting(32, "Pictures that are scored at once.", unit="picture", least=1)
    batch_pixels: int = setting(
        2**24,
        "The most pixels that are decoded and scored at once: a batch of large pictures is smaller.",
        unit="pixel",
    )
    batch_window: float = setting(0.005, "How long a batch waits to be filled.", unit="second", least=0, most=1)

    connections: int = setting(
        512,
        "The most connections; fewer if the process may open fewer than twice as many files. A new one takes the place "
        "of the one that has been without a whole request for longest.",
        unit="connection",
        least=1,
    )
    client_connections: int = setting(
        256, "The most connections of one address. A proxy in front counts as one.", unit="connection", least=1
    )

    def check(self) -> None:
        least = f"must be at least server.max_bytes = {self.max_bytes}"
        require(self.queue_bytes >= self.max_bytes, "server.queue_bytes", self.queue_bytes, least)
        least = f"must be at least server.max_pixels = {self.max_pixels}"
        require(self.batch_pixels >= self.max_pixels, "server.batch_pixels", self.batch_pixels, least)

    @property
    def memory(self) -> int:
        """Bytes that requests take at most, all together and beside the rewards' own weights."""
        bodies = 2 * self.queue_bytes  # one that grows leaves holes in the heap
        return bodies + PIXEL_BYTES * self.batch_pixels + CONNECTION_BYTES * self.connections


def load_server_config(path: Path) -> tuple[tuple[RewardSettings, ...], ServerSettings]:
    """Read and check `[[rewards]]`, written as a run's config has them, and `[server]`; nothing is loaded.

    Weights and held_out belong to a run and count for nothing here. Relative paths are relative to the file.

    Raises:
        ConfigError: an unknown key, a wrong type, a contradiction, a missing folder; one line with the remedy.
    """
    table = read_table(path)
    known_keys(table, ("rewards", "server"), "section of a reward server's config")
    rewards = parse_rewards(table.get("rewards", []), path.parent)
    different_labels(rewards)
    return rewards, parse_section(ServerSettings, table.get("server", {}), "server")
