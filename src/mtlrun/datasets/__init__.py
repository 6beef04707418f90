"""Data sets: one file each, and the loader that gives their batches."""

from mtlrun.datasets.base import SPLITS, MultiTaskDataset, SplitName, TensorSplit
from mtlrun.datasets.loading import Batch, Loader
from mtlrun.datasets.multidigits import MultiDigits
from mtlrun.datasets.scenes import Scenes

__all__ = ["SPLITS", "Batch", "Loader", "MultiDigits", "MultiTaskDataset", "Scenes", "SplitName", "TensorSplit"]
