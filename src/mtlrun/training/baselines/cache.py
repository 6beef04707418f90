"""The cache of baselines: a file for each task on each division of the data, shared by all runs below one root."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mtlrun.datasets.input_columns import InputColumn
from mtlrun.errors import MtlrunError
from mtlrun.records.folder import hold, open_atomically
from mtlrun.records.record import SplitSummary

# To be raised whenever a baseline would get another value than before.
_VERSION = 1
# Keys of a task that what it predicts, and its metrics, do not depend on.
_IRRELEVANT = ("lr", "weight", "head")

#: {method: {"metrics": {metric: value}, "settings": {...}}}.
Results = dict[str, dict[str, dict[str, Any]]]


def cache_key(
    task: str,
    node: Mapping[str, Any],
    sizes: Mapping[str, int],
    splits: Mapping[str, SplitSummary],
    columns: Sequence[InputColumn] | None,
) -> str | None:
    """Return a hash of all that the baselines of a task depend on; None if the content of a split is not known.

    Args:
        task: its name.
        node: its node in the config.
        sizes: those of its keys that the dataset gave.
        columns: what the numbers of an input mean.
        splits: fingerprints cover samples, inputs, labels and weights.
    """
    fingerprints = {name: (split.fingerprint, split.samples) for name, split in splits.items()}
    if any(fingerprint is None for fingerprint, _ in fingerprints.values()):
        return None
    relevant = {key: value for key, value in node.items() if key not in _IRRELEVANT} | dict(sizes)
    versions = [_VERSION, version("mtlrun"), version("scikit-learn")]
    categories = [place for place, column in enumerate(columns or ()) if column.kind == "category"]
    content = json.dumps([task, relevant, fingerprints, categories, versions], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Cache:
    """What is known of the baselines of a task.

    Runs may read and write the same file at once: all have the same values. A file that cannot be read counts as none.

    Args:
        folder: of all files; made when the first one is written.
        key: of the task; None to keep nothing.
    """

    def __init__(self, folder: Path, key: str | None) -> None:
        self.path = None if key is None else folder / f"{key}.json"

    def read(self, metrics: Collection[str]) -> Results:
        """Return the results that have these metrics and no others."""
        if self.path is None:
            return {}
        try:
            content = json.loads(self.path.read_text())
            return {
                method: {"metrics": {name: float(result["metrics"][name]) for name in metrics},
                         "settings": dict(result["settings"])}
                for method, result in content.items()
                if result["metrics"].keys() == set(metrics)
            }  # fmt: skip
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}

    def write(self, results: Results) -> None:
        """Replace the file, unless the folder cannot be written to, or another process is writing into it.

        That is no reason to end a run, nor to wait: results that are not kept are computed again.
        """
        if self.path is None:
            return
        with suppress(MtlrunError), hold(self.path.parent), open_atomically(self.path) as file:
            file.write(json.dumps(results).encode())
