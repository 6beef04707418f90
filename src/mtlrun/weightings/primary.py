"""The primary task of methods in which the other tasks only help."""

from collections.abc import Sequence
from typing import Any

import torch

from mtlrun.config.suggest import suggest
from mtlrun.weightings.capabilities import UsesTaskNames


class HasPrimaryTask(UsesTaskNames):
    """Mixin of methods that improve one task, the primary one; the others are auxiliary.

    Args:
        primary: the primary task: its name, which `set_task_names` finds among those of all tasks, or, where tasks have
            no names, its position from 0. There is no default, so None is refused as soon as the task is needed.
        common: see the kind of weighting.
    """

    def __init__(self, *, primary: str | int | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.primary = primary
        self._position: int | None = None

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)  # type: ignore[misc]
        self._position = None
        if isinstance(self.primary, int):
            if not 0 <= self.primary < num_tasks:
                raise ValueError(
                    f"primary must be a position from 0 to {num_tasks - 1}, or the name of a task, found {self.primary}"
                )
            self._position = self.primary

    def set_task_names(self, names: Sequence[str]) -> None:
        """Take in the names of all tasks, in their order; called once, after `setup`.

        Raises:
            ValueError: none of them is the primary task.
        """
        positions = {name: position for position, name in enumerate(names)}
        if self.primary not in positions:
            found = "null" if self.primary is None else repr(self.primary)
            hint = suggest(str(self.primary), names, "the tasks are")
            raise ValueError(f"primary must name the task that the other tasks are to help, found {found}; {hint}")
        self._position = positions[self.primary]

    @property
    def primary_position(self) -> int:
        """The position of the primary task among all tasks.

        Raises:
            ValueError: it is not known, since `primary` or the names of the tasks are missing.
        """
        if self._position is None:
            needed = "be given" if self.primary is None else "be found by its name: call `set_task_names` after `setup`"
            raise ValueError(f"primary must {needed}, found {self.primary!r}")
        return self._position

    def primary_row(self) -> int | None:
        """Return the position of the primary task among those with a loss in this step; None if it has none."""
        active = self._active  # type: ignore[attr-defined]
        position = self.primary_position
        if isinstance(active, torch.Tensor):
            present = active.tolist()
            return present.index(position) if position in present else None
        return position
