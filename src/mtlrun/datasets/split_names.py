"""The names of the three splits, for modules that read tables without PyTorch."""

from typing import Literal, get_args

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
