"""Observers: what logs a run while it trains, on the screen, in metrics.jsonl and in TensorBoard."""

from mtlrun.training.observers.base import Observer
from mtlrun.training.observers.console import EpochLines, Screen
from mtlrun.training.observers.metrics_file import MetricsFile
from mtlrun.training.observers.several import Observers
from mtlrun.training.observers.tensorboard import TensorBoard

__all__ = ["EpochLines", "MetricsFile", "Observer", "Observers", "Screen", "TensorBoard"]
