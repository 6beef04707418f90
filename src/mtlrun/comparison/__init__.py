"""Comparison: many records made into one answer.

Here: reading the records of folders, grouping runs by config over seeds and folds, the single-task baseline, the table
with its formats, and the statistics on it. Not here: what a single record is (`records`), and training anything.

Contract: records are read, and of the files beside them only what is asked for; nothing is written but the mean curves
for TensorBoard (`event_summary`). torch is never imported, and NumPy, SciPy, pandas and Matplotlib only in the
functions that need them, so that the table of thousands of runs is quick. A `ComparisonTable` holds values; only
`formats` makes texts of them.
"""
