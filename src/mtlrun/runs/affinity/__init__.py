"""Affinity of tasks by what only models and data can tell: their labels, and the networks that were trained for them.

What follows from records alone is in `mtlrun.comparison.affinity`, and so are the formulas.
"""


def in_one_line(error: Exception) -> str:
    """Return the message of an error, which may list several problems, as one line."""
    return "; ".join(line.strip() for line in str(error).splitlines())
