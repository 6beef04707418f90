"""Preferences between tasks, from the keys `tasks.<t>.weight`."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from mtlrun.config.bounds import Positive, checked
from mtlrun.weightings.capabilities import UsesTaskWeights


class UsesPreferences(UsesTaskWeights):
    """Mixin of methods in which a task may count for more or less than the others.

    Args:
        preferences: one number > 0 per task, in the order of the tasks; None for equal ones. Ones only are the same as
            None, for any number of tasks. The word `size`, which is a weight for `static` only, is refused when the
            preferences are used, and before a run.
        common: see the kind of weighting.
    """

    preferences: Tensor

    @checked
    def __init__(self, *, preferences: Sequence[Positive | Literal["size"]] | None = None, **common: Any) -> None:
        super().__init__(**common)
        self._given = preferences is not None
        self._preferences = None if all(number == 1 for number in preferences or ()) else preferences

    @property
    def reads_task_weights(self) -> bool:
        return self._given

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)  # type: ignore[misc]
        given = [1.0] * num_tasks if self._preferences is None else self._preferences
        if len(given) != num_tasks:
            raise ValueError(f"preferences must hold one number for each of the {num_tasks} tasks, found {len(given)}")
        numbers = [math.nan if number == "size" else number for number in given]
        self.register_buffer("preferences", torch.tensor(numbers, dtype=torch.float64))  # type: ignore[attr-defined]

    def active_preferences(self) -> Tensor:
        """Return the preferences of the tasks that have a loss in this step.

        Raises:
            ValueError: one is `size`.
        """
        if self._preferences is not None and "size" in self._preferences:
            raise ValueError(f"preferences must be numbers, found {self._preferences}")
        active: Tensor = self.preferences[self.active]  # type: ignore[attr-defined]
        return active

    def relative_preferences(self, num_tasks: int) -> numpy.ndarray:
        """Return the preferences of the `num_tasks` active tasks with a mean of one: only their ratios matter."""
        if self._preferences is None:
            return numpy.ones(num_tasks)
        preferences = self.active_preferences()
        relative: numpy.ndarray = (preferences / preferences.mean()).numpy()
        return relative
