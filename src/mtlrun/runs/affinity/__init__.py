"""Affinity of tasks by what only models and data can tell: their labels, and the networks that were trained for them.

What follows from records alone is in `mtlrun.comparison.affinity`, and so are the formulas.
"""
