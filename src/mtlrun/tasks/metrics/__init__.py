"""Metrics that torchmetrics lacks, or computes twice for two values of one evaluation, and those of a default run.

Here: metrics of several files' tasks, or too long for a task's file; accuracy and macro F1 of classes, so that a run
with classification tasks alone need not import torchmetrics, SciPy and torchvision.
Not here: what else torchmetrics has, or metrics of one task kind that are a few lines (in the task's file).

Contract: a `torchmetrics.Metric`, or a `CountMetric`, pooled over a split, with `higher_is_better`; NaN if it is not
defined on the split.
"""
