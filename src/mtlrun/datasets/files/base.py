"""Splits and datasets in files: read sample by sample, or as a whole into memory."""

from abc import ABC, abstractmethod
from typing import Any

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import Cache, MultiTaskDataset, Split, SplitName


class FileSplit(Split, ABC):
    """A split that reads the files of a sample when it is accessed."""

    def check(self) -> None:
        """Raise DataError if files are broken, as far as a quick look shows; called before a split is read lazily."""

    @abstractmethod
    def in_memory(self) -> Split:
        """Read all files, and return the same split in memory.

        Raises:
            DataError: a file is broken.
        """


class FileDataset(MultiTaskDataset):
    """Base of the datasets in files.

    Args:
        cache: `none`: files are read whenever a sample is accessed; `memory`: each split is read once, when it is first
            asked for; `device`: it is then moved to the device that is trained on; `auto`: to a GPU with room
            for it.
        choices: a Literal type: which of these the dataset offers.
    """

    def __init__(self, cache: Cache, choices: Any = Cache) -> None:
        check_one_of("cache", cache, choices)
        self.cache = cache
        self._splits: dict[SplitName, Split] = {}

    def split(self, name: SplitName) -> Split:
        if name not in self._splits:
            self._splits[name] = self.load(name)
        return self._splits[name]

    def load(self, name: SplitName) -> Split:
        """Return a split as `cache` has it; called once per split."""
        files = self.files(name)
        if self.cache != "none":
            return files.in_memory()
        files.check()
        return files

    @abstractmethod
    def files(self, name: SplitName) -> FileSplit:
        """Return a split that reads its files whenever a sample is accessed."""
