"""Task kinds: each brings its loss, its metrics with their direction, and the size of its head."""

from mtlrun.tasks.base import Meter, Task
from mtlrun.tasks.classification import Classification
from mtlrun.tasks.labels import LabelledBatch
from mtlrun.tasks.regression import Regression

__all__ = ["Classification", "LabelledBatch", "Meter", "Regression", "Task"]
