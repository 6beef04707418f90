"""How many repetitions would be needed, and what a number of them can find, by the power of the paired t test.

Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences" (1988), chapter 2; T of the test is distributed
as a noncentral t with n - 1 degrees of freedom and the noncentrality gain / deviation * sqrt(n).
"""

from math import isfinite, sqrt

POWER = 0.8
_MOST = 10_000


def power(effect: float, count: int, alpha: float = 0.05) -> float:
    """Return the probability that the two-sided paired t test finds a difference.

    Args:
        effect: the mean difference over the standard deviation of the differences.
        count: number of pairs, at least 2.
        alpha: level of the test.
    """
    from scipy.special import nctdtr, stdtrit

    freedom, shift = count - 1, abs(effect) * sqrt(count)
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    found = 1 - float(nctdtr(freedom, shift, critical)) + float(nctdtr(freedom, shift, -critical))
    return found if isfinite(found) else 1.0  # where the noncentrality is beyond what can be computed


def needed_repetitions(gain: float, deviation: float, alpha: float = 0.05, wanted: float = POWER) -> int | None:
    """Return how many paired repetitions find a difference such as the observed one with the wanted power.

    It is about as uncertain as the difference and its deviation are. None if no number up to 10,000 does, or the
    differences do not vary, so that nothing is known of their spread.

    Args:
        gain: mean difference.
        deviation: standard deviation of the paired differences.
        alpha: level of the two-sided test.
        wanted: power.
    """
    if gain == 0 or deviation == 0 or not isfinite(gain) or not isfinite(deviation):
        return None
    effect = gain / deviation
    low, high = 1, 2
    while power(effect, high, alpha) < wanted:
        low, high = high, 2 * high
        if high > 2 * _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, alpha) >= wanted else (middle, high)
    return high if high <= _MOST else None


def detectable_effect(count: int, alpha: float = 0.05, wanted: float = POWER) -> float:
    """Return the smallest difference, in standard deviations of paired differences, that is found with a power.

    Args:
        count: number of pairs, at least 2.
        alpha: level of the two-sided test.
        wanted: power.
    """
    low, high = 0.0, 1.0
    while power(high, count, alpha) < wanted:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, count, alpha) >= wanted else (middle, high)
    return high
