"""Affinity: which tasks help or hurt each other, as a matrix per measure, and which of them to train together.

Here: the measures and their matrices, those that follow from records and curves, the formulas for labels and features,
and groups of tasks. Not here: what needs models or data (`mtlrun.runs.affinity`).
"""
