"""Statistics of a comparison: pure functions of numbers, which know neither records nor tables.

Here: intervals, paired differences, corrections for many tests, rank groups, how many repetitions would be needed,
the probability of improvement, Friedman's test. Not here: which runs are compared with which (`comparison`).

Contract: a method's results are {repetition: value}, where a repetition is whatever its config is folded over, such as
a seed; two methods are paired on equal repetitions. Values that are not finite count as missing. A gain is positive
where the first method is better, whatever the direction of the metric. Random draws have a fixed seed.
NumPy and SciPy are imported in the functions that use them.
"""
