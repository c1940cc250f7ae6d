"""Several rewards become one advantage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..choices import NORMALISATIONS
from .advantages import FLAT, group_advantages


@dataclass(frozen=True)
class Combined:
    """Advantages [P, G], which groups [P] have one, and how much the members of each differ, [P]."""

    advantages: Tensor
    informative: Tensor
    spread: Tensor  # standard deviation of the sum, each reward in a unit that all groups share; 0 for no advantage


def combine(
    scores: Mapping[str, Tensor],
    weights: Mapping[str, float],
    normalisation: str,
    clips: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> Combined:
    """Weighted sum of several rewards as a group-relative advantage.

    Args:
        scores: [P, G] of each reward. Rewards without a weight (held out) are ignored.
        weights: of the trained rewards; a negative one asks for less.
        normalisation: "advantage" normalises each reward within its group first, so that rewards of any scale count
            by their weights; "raw" adds the raw scores.
        clips: (lowest, highest) of some rewards. A score beyond counts as the bound, before any normalisation, so that
            there is nothing to gain from a reward that is as high as it means anything.

    A group is informative when no trained score in it is NaN or infinite and the sum still tells its members apart.
    """
    trained = {name: scores[name] for name in weights}
    finite = torch.stack([s.isfinite().all(-1) for s in trained.values()]).all(0)  # [P]
    trained = {name: s.clamp(*clips[name]) if name in clips else s for name, s in trained.items()}
    in_common = trained
    if normalisation == "advantage":
        in_common = {name: in_units(s, finite) for name, s in trained.items()}
        trained = {name: group_advantages(s)[0] for name, s in trained.items()}
    elif normalisation != "raw":
        raise ValueError(f"reward normalisation must be one of {', '.join(NORMALISATIONS)}, got {normalisation!r}")
    parts, shared = weighed(weights, trained), weighed(weights, in_common).sum(0)
    total = parts.sum(0)
    # rewards that cancel leave their rounding, which must not be normalised into an advantage
    cancelled = total.amax(-1) - total.amin(-1) <= FLAT * parts.abs().sum(0).amax(-1)
    total = torch.where(cancelled[:, None], 0, total)
    advantages, informative = group_advantages(total)
    informative = informative & finite
    spread = torch.where(informative, shared.std(-1, correction=0), 0).float()
    return Combined(torch.where(informative[:, None], advantages, 0), informative, spread)


def weighed(weights: Mapping[str, float], trained: Mapping[str, Tensor]) -> Tensor:
    """Each reward times its weight, [rewards, P, G] float64."""
    return torch.stack([weights[name] * s.double() for name, s in trained.items()])


def in_units(scores: Tensor, finite: Tensor) -> Tensor:
    """Scores [P, G] over the mean standard deviation of the groups that are `finite`, [P]; float64."""
    s = torch.where(finite[:, None], scores.double(), 0)
    unit = s.std(-1, correction=0).sum() / finite.sum().clamp_min(1)
    return s / torch.where(unit > 0, unit, 1)
