"""Whether a kernel of Triton's works, found out by a trial: much can be missing, such as a C compiler."""

import logging
from collections.abc import Callable

from ...device import Device, kernels_by_triton

log = logging.getLogger(__name__)


def works(device: Device, trial: Callable[[], object], without: str) -> bool:
    """Whether `trial`, which calls the kernel, succeeds on a device that Triton compiles for.

    Args:
        without: how it goes on if not, for the warning that says so; whoever asks remembers the answer.
    """
    if not kernels_by_triton(device):
        return False
    try:
        trial()
    except Exception as error:  # noqa: BLE001  Triton, the compiler and the driver have errors of their own
        log.warning("Triton does not work here (%s): %s", " ".join(str(error).split())[:200], without)
        return False
    return True
