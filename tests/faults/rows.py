"""What a campaign of faults reports: a row for each kind of fault."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Row:
    """One kind of fault, tried many times."""

    fault: str  # what was done, in a few words
    times: int = 0
    lost: int = 0  # times that something was lost or changed that should have stayed (work, a file, another's turn)
    tracebacks: int = 0  # times that a user would have read one
    outcomes: Counter[str] = field(default_factory=Counter)  # what came of it, in the words that a user reads

    def add(self, outcome: str, *, lost: bool = False, traceback: bool = False) -> None:
        """One more time."""
        self.times += 1
        self.lost += lost
        self.tracebacks += traceback
        self.outcomes[outcome] += 1

    @property
    def held(self) -> bool:
        """Whether nothing was lost and nobody read a traceback, in at least one time."""
        return self.times > 0 and not self.lost and not self.tracebacks
