"""Looking at runs: everything is read from their folders, while they are trained and afterwards. No torch in here."""

from ..store.database import StoreError
from ..store.reader import Reader, reading
from .curves import POINTS, Curve, curves
from .findings import findings
from .groups import base_tile, candidate_tile, evaluation, evaluation_tile, groups, index
from .runs import NoRun, Summary, details, find, is_live, summaries, summary
from .strengths import strengths

__all__ = [
    "POINTS",
    "Curve",
    "NoRun",
    "Reader",
    "StoreError",
    "Summary",
    "base_tile",
    "candidate_tile",
    "curves",
    "details",
    "evaluation",
    "evaluation_tile",
    "find",
    "findings",
    "groups",
    "index",
    "is_live",
    "reading",
    "strengths",
    "summaries",
    "summary",
]
