"""Task kinds: each brings its loss, its metrics with their direction, and the size of its head."""

from mtlrun.tasks.base import Meter, Task
from mtlrun.tasks.classification import Classification
from mtlrun.tasks.labels import part_losses, pick, split_labelled, task_losses, task_performances
from mtlrun.tasks.regression import Regression

__all__ = [
    "Classification",
    "Meter",
    "Regression",
    "Task",
    "part_losses",
    "pick",
    "split_labelled",
    "task_losses",
    "task_performances",
]
