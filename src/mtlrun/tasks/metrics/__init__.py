"""Metrics that torchmetrics lacks, or computes from a state for each of them.

Here: metrics of several files' tasks, or too long for a task's file.
Not here: what torchmetrics has, or metrics of one task kind that are a few lines (in the task's file).

Contract: a `torchmetrics.Metric` pooled over a split, with `higher_is_better`; NaN if it is not defined on the split.
"""
