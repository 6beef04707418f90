"""Levels: texts whose order is certain, as words such as low, medium, high, or as ranges of numbers."""

import re
from collections.abc import Sequence
from itertools import pairwise
from math import inf

# Scales, from the lowest to the highest; what stands in one place are words for the same level.
_SCALES = (
    "very low|lowest, low, low to medium, medium|med|mid|moderate|middle|normal, medium to high, high, very high"
    "|highest",
    "tiny, small, medium|med, large|big, huge",
    "xxs, xs, s, m, l, xl, xxl, xxxl",
    "never, rarely|seldom, sometimes|occasionally, often|frequently, very often, always",
    "strongly disagree, disagree, neutral|neither agree nor disagree|undecided, agree, strongly agree",
    "very dissatisfied, dissatisfied, neutral, satisfied, very satisfied",
    "very unlikely, unlikely, neutral, likely, very likely",
    "very bad|terrible|awful, very poor, poor|bad, fair|average|ok|okay|acceptable, good, very good, excellent|great, "
    "outstanding",
    "none|no|absent, minimal, mild|light|slight, moderate, severe|serious, critical|very severe",
    "negative, neutral, positive",
    "beginner|novice, elementary, intermediate, advanced, expert",
    "bronze, silver, gold, platinum, diamond",
    "first, second, third, fourth, fifth, sixth, seventh, eighth, ninth, tenth",
    "1st, 2nd, 3rd, 4th, 5th, 6th, 7th, 8th, 9th, 10th",
    "sehr niedrig, niedrig|gering, mittel, hoch, sehr hoch",
    "nie, selten, manchmal, oft|häufig, immer",
)
_PLACES = [
    {word.strip(): place for place, words in enumerate(scale.split(",")) for word in words.split("|")}
    for scale in _SCALES
]
_NUMBER = r"[$€£]?\s?(\d[\d,]*(?:\.\d+)?)\s?[k%]?"
_UNIT = r"(?:\s?[a-z]+\.?)?"
_RANGE = re.compile(rf"{_NUMBER}\s?(?:-|–|to|bis|\.\.)\s?{_NUMBER}{_UNIT}")
_BELOW = re.compile(rf"(?:<|<=|≤|less than|under|below|up to|unter|bis)\s?{_NUMBER}{_UNIT}")
_ABOVE = re.compile(
    rf"(?:>|>=|≥|more than|over|above|über|ab)\s?{_NUMBER}{_UNIT}"
    rf"|{_NUMBER}{_UNIT}\s?(?:\+|and (?:over|more|older|above))"
)


def order_of_levels(names: Sequence[str]) -> list[int] | None:
    """Return the places of three or more levels, from the lowest to the highest; None unless the order is certain.

    >>> order_of_levels(["high", "low", "medium"])
    [1, 2, 0]
    >>> order_of_levels(["18-25", "<18", "26-40", "40+"])
    [1, 0, 2, 3]
    """
    if len(names) < 3:
        return None
    plain = [re.sub(r"[\s_-]+", " ", name.strip().casefold()) for name in names]
    for places in _PLACES:
        values = [places.get(name) for name in plain]
        if None not in values and len(set(values)) == len(values):
            return sorted(range(len(names)), key=lambda index: values[index] or 0)
    ranges = [_range(name.strip().casefold()) for name in names]
    found = [bounds for bounds in ranges if bounds is not None]
    if len(found) < len(names):
        return None
    order = sorted(range(len(names)), key=lambda index: found[index])
    ordered = [found[index] for index in order]
    apart = all(lower[1] <= upper[0] and lower[0] < upper[0] for lower, upper in pairwise(ordered))
    return order if apart else None


def _range(text: str) -> tuple[float, float] | None:
    """Return the bounds of a range of numbers, such as 18-25, <18 or 65+; None if the text is none."""
    if match := _RANGE.fullmatch(text):
        low, high = _value(match[1]), _value(match[2])
        return (low, high) if low <= high else None
    if match := _BELOW.fullmatch(text):
        return -inf, _value(match[1])
    if match := _ABOVE.fullmatch(text):
        return _value(match[1] or match[2]), inf
    return None


def _value(text: str) -> float:
    return float(text.replace(",", ""))
