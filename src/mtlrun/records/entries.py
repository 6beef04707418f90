"""What must stand in the dictionaries of a record for it to be shown and compared; there may be more in them."""

from typing import Any, NotRequired, TypedDict


class ConfigEntries(TypedDict):
    """What is read of a run's config."""

    names: dict[str, Any]
    runtime: NotRequired[dict[str, Any]]
    tasks: NotRequired[dict[str, dict[str, Any]]]


class SelectionEntries(TypedDict):
    """One selection; the mean of the legacy protocol has the number of evaluations and the epoch of the first."""

    tasks: list[str]
    rule: str
    epoch: int
    step: int
    skill: NotRequired[float]
    stand_ins: NotRequired[dict[str, str]]
    evaluations: NotRequired[int]
    first_epoch: NotRequired[int]


class SkillEntries(TypedDict):
    """The skills of a task."""

    selected: float
    best: float
    best_epoch: int
    best_step: int


class BootstrapEntries(TypedDict, total=False):
    """How intervals were found; nothing where there are none."""

    resamples: int
    groups: bool
    drawn_from: dict[str, int]
    undefined: dict[str, dict[str, float]]
    by_wilson: dict[str, list[str]]


class MadeFromEntries(TypedDict):
    """The finished runs that a result was made from: `run_id`, `folder` and when it `ended` of each of the `runs`."""

    method: str
    runs: list[dict[str, Any]]
    settings: NotRequired[dict[str, Any]]


class SplitEntries(TypedDict, total=False):
    """What is read of a `SplitSummary`, whose other fields records of earlier versions may lack."""

    samples: int
    labeled: dict[str, int]
    fingerprint: str | None
