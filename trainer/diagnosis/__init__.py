"""What is wrong with a run, read from its curves. Each check is a pure function of a Record."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .policy import mode_collapse, norm_inflation, trust_region
from .record import Finding, Record, Series
from .rewards import flat_rewards, noisy_reward, reward_hacking, stalled

__all__ = ["CHECKS", "Finding", "Record", "Series", "diagnose"]

CHECKS: dict[str, Callable[[Record], Finding | None]] = {
    "reward-hacking": reward_hacking,
    "trust-region": trust_region,
    "mode-collapse": mode_collapse,
    "norm-inflation": norm_inflation,
    "flat-rewards": flat_rewards,
    "noisy-reward": noisy_reward,
    "stalled": stalled,
}


def diagnose(
    curves: Mapping[str, Series], settings: Mapping[str, Any], checks: Iterable[str] = tuple(CHECKS)
) -> list[Finding]:
    """The findings of some checks, all if none are named.

    Args:
        curves: (iteration, value) of each metric by its name, in the order of the iterations.
        settings: of the run, as it stores them (`Config.to_dict()`).
    """
    record = Record.of(curves, settings)
    found = (CHECKS[name](record) for name in checks)
    return [finding for finding in found if finding]
