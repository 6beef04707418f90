"""Observers: what is told of a run while it runs, on the screen, in metrics.jsonl and in TensorBoard."""

from mtlrun.observers.base import Observer, RunInfo
from mtlrun.observers.console import Screen
from mtlrun.observers.metrics_file import MetricsFile
from mtlrun.observers.tensorboard import TensorBoard

__all__ = ["MetricsFile", "Observer", "RunInfo", "Screen", "TensorBoard"]
