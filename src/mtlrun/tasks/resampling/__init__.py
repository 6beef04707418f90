"""Metrics of many resamples at once, from how often each sample occurs in each.

Here: a file per family of metrics: means, decisions, rankings, numbers.
Not here: drawing the resamples and what is made of the values (`training.intervals`), or the metrics of a split
(`tasks.metrics`), which these must equal where every sample occurs once.

Contract: a function from counts, float64 [B, n], to {metric: values [B]}; NaN where a metric is not defined. What does
not depend on the counts, such as sorting, is done once, when the function is made. NumPy in float64, on the CPU. What
it is made of are tensors, or arrays such as those of a file of predictions, for which PyTorch is not imported.
"""
