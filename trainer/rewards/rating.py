"""The number in a vision language model's answer, which it may have set in Markdown or JSON."""

import math
import re

NUMBER = r"[-+]?\d+(?:\.\d+)?"
# Marks of Markdown, JSON and LaTeX around a label and its number; no sign, which belongs to the number.
MARKS = r"[\s*_`~#\"'|\\$>\[{}(<]{0,40}"
LABEL = re.compile(
    r"(?P<final>final|overall|total)?[\s_-]{0,3}(?:score|rating)(?![a-z0-9])"
    rf"[*_`\"'|\s]{{0,20}}(?P<range>\([^()\n]{{0,60}}\))?[*_`\"'|\s]{{0,20}}(?:[:=]|\bis\b|\s[-–—]\s)?"
    rf"{MARKS}(?:\\?boxed\{{)?(?P<number>{NUMBER})",
    re.IGNORECASE,
)
OUT_OF = re.compile(
    rf"[*_`\"'\s\])}}>]{{0,20}}(?:(?:/|out\s+of\b|of\b){MARKS}(?P<best>\d+(?:\.\d+)?)|\\?(?P<percent>%))", re.IGNORECASE
)
# what makes of a number another one, or a range: 4,5; 4.5.1; 1e3; 7-8; 7 to 8; 7 or 8
UNSURE = re.compile(r"[.,]?\d|e[-+]?\d|\s{0,3}[-–—~]\s{0,3}\d|\s{1,3}(?:to|or|and)\s{1,3}\d", re.IGNORECASE)


def rating(answer: str, best: float) -> float:
    """The score from 0 to 1 that an answer of any form gives: "**Score:** 7/10" or {"rating": 3.5} with 5 as the best.

    Of several the last "final", "overall" or "total" one counts; without such a word they have to agree. NaN if there
    is none, or what it says is ambiguous: two scores, 7 to 8, 3,5.
    """
    found = list(LABEL.finditer(answer))
    values = [share(answer, *match.span("number"), _best(match["range"], best)) for match in found]
    final = [value for match, value in zip(found, values, strict=True) if match["final"]]
    if final:
        return final[-1]
    return values[-1] if len({*values}) == 1 else math.nan


def share(answer: str, start: int, end: int, best: float) -> float:
    """What the number at `start` to `end` of an answer is of the best one, which may stand behind it: 7/10, 70%."""
    try:
        value = float(answer[start:end])
    except ValueError:
        return math.nan
    if UNSURE.match(answer, end):
        return math.nan
    if named := OUT_OF.match(answer, end):
        best = 100.0 if named["percent"] else float(named["best"])
    return value / best if 0 <= value <= best and best > 0 else math.nan


def _best(range_: str | None, best: float) -> float:
    """The best score by a range behind the label, as in "Score (1-10)"."""
    numbers = re.findall(r"\d+(?:\.\d+)?", range_ or "")
    return float(numbers[-1]) if numbers else best
