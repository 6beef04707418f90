"""A run as a comparison sees it: its record, its folder and its state."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mtlrun.comparison.data_sets import Meaning, content_of, dataset_of, meaning_of_task
from mtlrun.records.folder import METRICS
from mtlrun.records.identity import flatten
from mtlrun.records.record import Record


@dataclass(eq=False)
class Run:
    """A run that has left a record.

    Args:
        record: of the run.
        folder: where it was found; None for what has no folder, such as a simple predictor.
        state: status of the record; for one that says `running`, what `mtlrun.records.heartbeat.state_of` finds.
    """

    record: Record
    folder: Path | None = None
    state: str = ""

    def __post_init__(self) -> None:
        self.state = self.state or self.record.status
        self._meanings: dict[str, Meaning] = {}
        #: Number of lines of metrics.jsonl that were no entries, when it was last read; a last one that is cut off is
        #: that of a run which was just writing it.
        self.unreadable_lines = 0

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config without what cannot change a result, with dotted keys."""
        return flatten(self.record.config)

    @cached_property
    def content(self) -> str:
        """A short hash of the content of the files that the run read; "" if it read none."""
        return content_of(self.record)

    @cached_property
    def fold(self) -> int | None:
        """The fold of cross-validation that is the test split; None without folds."""
        dataset = dataset_of(self.record)
        return dataset.get("fold") if dataset.get("num_folds") is not None else None

    @property
    def made_from(self) -> str:
        """What a result was made from that is not one of training, such as `average of 3 runs`; "" for a training."""
        return "" if self.record.made_from is None else str(self.record.config["names"].get("made_from", "runs"))

    @property
    def test_selected(self) -> bool:
        """True if the result is a mean over the last evaluations of the test split."""
        return self.record.protocol == "legacy"

    def meaning(self, task: str) -> Meaning:
        """Return what must be equal for two results of tasks of one name to be comparable."""
        if task not in self._meanings:
            self._meanings[task] = meaning_of_task(self.record, task)
        return self._meanings[task]

    def lookup(self, key: str) -> Any:
        """Return the value of a dotted key of the config, of `runtime` too; None if it has none.

        A group, such as `weighting`, has the name of its option as its value, and `tasks` the names of the tasks.
        """
        if key == "tasks":
            return ", ".join(self.record.config.get("tasks", {}))
        names = self.record.config["names"]
        if key in names:
            return names[key]
        node: Any = self.record.config
        for name in key.split("."):
            if not isinstance(node, Mapping) or name not in node:
                return None
            node = node[name]
        return str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, Mapping) else node

    def curve(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of metrics.jsonl; nothing if the file is absent, and no line that is not whole.

        Each has `split`, `step`, `epoch` and numbers by tag, such as `val/<task>/<metric>`; see
        `mtlrun.training.observers.metrics_file`.
        """
        self.unreadable_lines = 0
        if self.folder is None:
            return
        with suppress(OSError), open(self.folder / METRICS, "rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    entry = None
                if isinstance(entry, dict) and isinstance(entry.get("split"), str):
                    yield entry
                elif line.endswith(b"\n"):
                    self.unreadable_lines += 1
