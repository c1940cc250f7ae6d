"""The server's settings: which rewards, on which device, and what a request may cost."""

from dataclasses import dataclass
from pathlib import Path

from ..choices import AUTO
from ..settings.config import RewardSettings, different_labels, require
from ..settings.config_file import known_keys, parse_rewards, parse_section, read_table


@dataclass(frozen=True)
class ServerSettings:
    """`[server]`. The defaults take 64 pictures of 1024 x 1024 as PNG, or 21 as float32, in one request."""

    device: str = AUTO  # "auto" is CUDA where there is one
    max_images: int = 64  # of a request
    max_pixels: int = 2048 * 2048  # of a picture
    max_bytes: int = 256 * 2**20  # of a request's body
    queue_requests: int = 256  # accepted and not answered yet
    queue_bytes: int = 2 * 2**30  # that these hold: their bodies and decoded pictures
    batch_size: int = 32  # pictures scored at once
    batch_window: float = 0.005  # seconds that a batch waits to be filled

    def __post_init__(self) -> None:
        for name in ("max_images", "max_pixels", "max_bytes", "queue_requests", "batch_size"):
            require(getattr(self, name) >= 1, f"server.{name}", getattr(self, name), "must be at least 1")
        require(0 <= self.batch_window <= 1, "server.batch_window", self.batch_window, "must be between 0 and 1 second")
        require(
            self.queue_bytes >= self.max_bytes,
            "server.queue_bytes",
            self.queue_bytes,
            f"must be at least server.max_bytes = {self.max_bytes}",
        )


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
