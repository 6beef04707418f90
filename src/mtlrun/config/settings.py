"""The groups `trainer` and `runtime` of the config, checked."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from mtlrun.config.checks import check_one_of

# `standard`: a checkpoint is selected on validation and tested once. `legacy`: the test split is evaluated during
# training, and the result is the mean over the last evaluations, as many published results are computed.
Protocol = Literal["standard", "legacy"]
#: The form in which predictions are kept.
PredictionFormat = Literal["csv", "parquet", "none"]

# What `trainer.baselines` may be; `auto` for those that take seconds.
BaselineChoice = bool | Literal["auto"]


@dataclass(frozen=True)
class Settings:
    """The group `trainer` of the config; conf/trainer/default.yaml explains its keys.

    Where batch_size, evaluate_every, or both epochs and steps are None, `mtlrun.setup.length` chooses them.

    Raises:
        ValueError: a key is out of its bounds.
    """

    epochs: int | None = 30
    steps: int | None = None
    batch_size: int | None = 256
    micro_batches: int = 1
    vmap_backward: bool = False
    eval_batch_size: int = 1024
    evaluate_every: int | None = 1
    evaluate_every_steps: int | None = None
    monitor: str = "mean_skill"
    patience: int | None = None
    min_delta: float = 0.0
    clip_norm: float | None = None
    log_every: int = 10
    log_gradients_every: int | None = None
    log_pictures: int = 4
    max_fallbacks: float = 0.1
    limit_batches: int | None = None
    deterministic: bool = False
    baselines: BaselineChoice = "auto"

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs or steps must be null, found {self.epochs} and {self.steps}")
        for name in ("epochs", "steps", "batch_size", "micro_batches", "eval_batch_size", "evaluate_every", "patience",
                     "evaluate_every_steps", "log_gradients_every", "log_every", "limit_batches"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, found {value}")
        if self.log_pictures < 0:
            raise ValueError(f"log_pictures must be >= 0, found {self.log_pictures}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be > 0, or null for no clipping, found {self.clip_norm}")
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta must be a finite number >= 0, found {self.min_delta}")
        if not 0 <= self.max_fallbacks <= 1:
            raise ValueError(f"max_fallbacks must be in [0, 1], found {self.max_fallbacks}")


@dataclass(frozen=True)
class Runtime:
    """The group `runtime`: where and how a run is computed; conf/runtime/default.yaml explains its keys.

    Only two of them can change a result: `num_threads`, which is part of a run's identity, and `device`, by rounding.

    Raises:
        ValueError: a key is out of its bounds.
    """

    root: str = "outputs"
    study: str = "runs"
    device: str = "auto"
    num_workers: int = 0
    num_threads: int | None = None
    checkpoint_minutes: float | None = 10.0
    predictions: PredictionFormat = "csv"
    rerun: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ValueError(f"num_workers must be >= 0, found {self.num_workers}")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be >= 1, or null for 1, found {self.num_threads}")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise ValueError(
                f"checkpoint_minutes must be > 0, or null for the ends of epochs only, found {self.checkpoint_minutes}"
            )
        check_one_of("predictions", self.predictions, PredictionFormat)
        if not self.root:
            raise ValueError("root must name a folder, found ''; . is the current one")
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", self.study):
            raise ValueError(
                f"study must be a folder name, found {self.study!r}; it has letters, digits, . _ and -, and stands "
                "below runtime.root, which may be any folder"
            )
