"""A process that ends by SIGKILL at a moment of one's choice."""

import os
import signal
import sys
from collections.abc import Callable


def kill_at(moment: int) -> Callable[[], int]:
    """This process ends as it opens, makes, renames or removes its nth file; -1 never. Gives what tells the n reached.

    Between two of these moments the disk stays as it is.
    """
    reached = -1

    def watch(event: str, _: object) -> None:
        nonlocal reached
        if event == "open" or event.startswith(("os.", "sqlite3.")):
            reached += 1
            if reached == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return lambda: reached
