"""The groups `trainer` and `runtime` of the config, checked."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from mtlrun.config.bounds import LARGEST, Bounds, Count, Fraction, MaxNorm, NonNegative, PartsOrZero, check_fields
from mtlrun.config.checks import check_one_of
from mtlrun.config.shortening import shorten

# `standard`: a checkpoint is selected on validation and tested once. `legacy`: the test split is evaluated during
# training, and the result is the mean over the last evaluations, as many published results are computed.
Protocol = Literal["standard", "legacy"]
#: float32 without and with TF32 in matrix products and convolutions of a GPU, and autocast to bfloat16 or float16.
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
#: The form in which predictions are kept.
PredictionFormat = Literal["csv", "parquet", "none"]

Workers = Annotated[int, Bounds(0, 1024, limit=True)]
Threads = Annotated[int, Bounds(1, 1024, limit=True, null="1")]
#: More than a few hundred copies of a model fit into no memory.
Seeds = Annotated[int, Bounds(2, 1000, limit=True, null="one seed")]
Minutes = Annotated[float, Bounds(0, LARGEST, open_low=True, limit=True, null="the ends of epochs only")]

# What `trainer.baselines` may be; `auto` for those that take seconds.
BaselineChoice = bool | Literal["auto"]


@dataclass(frozen=True)
class Settings:
    """The group `trainer` of the config; conf/trainer/default.yaml explains its keys.

    Where batch_size, evaluate_every, or both epochs and steps are None, `mtlrun.setup.length` chooses them.

    Raises:
        ValueError: a key is out of its bounds.
    """

    epochs: Count | None = 30
    steps: Count | None = None
    batch_size: Count | None = 256
    micro_batches: Count = 1
    vmap_backward: bool = False
    two_pass: bool = False
    stream_rows: bool = False
    checkpoint_activations: bool = False
    eval_batch_size: Count = 1024
    evaluate_every: Count | None = 1
    evaluate_every_steps: Count | None = None
    monitor: str = "mean_skill"
    patience: Count | None = None
    min_delta: NonNegative = 0.0
    clip_norm: MaxNorm | None = None
    log_every: Count = 10
    log_gradients_every: Count | None = None
    log_affinity_every: Count | None = None
    log_pictures: PartsOrZero = 4
    max_fallbacks: Fraction = 0.1
    limit_batches: Count | None = None
    bootstrap_rows: bool = False
    deterministic: bool = False
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    cuda_graph: bool = False
    vectorized_seeds: Seeds | None = None
    baselines: BaselineChoice = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        check_one_of("precision", self.precision, Precision)
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs or steps must be null, found {self.epochs} and {self.steps}")
        if self.batch_size is not None and self.micro_batches > self.batch_size:
            raise ValueError(
                f"micro_batches must be <= batch_size ({self.batch_size}), the samples that it divides, found "
                f"{self.micro_batches}"
            )


@dataclass(frozen=True)
class Runtime:
    """The group `runtime`: where and how a run is computed; conf/runtime/default.yaml explains its keys.

    Only two of them can change a result: `num_threads`, which is part of a run's identity, and `device`, by rounding
    and by what is drawn on it.

    Raises:
        ValueError: a key is out of its bounds.
    """

    root: str = "outputs"
    study: str = "runs"
    device: str = "auto"
    num_workers: Workers = 0
    num_threads: Threads | None = None
    checkpoint_minutes: Minutes | None = 10.0
    predictions: PredictionFormat = "csv"
    rerun: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_one_of("predictions", self.predictions, PredictionFormat)
        if not self.root:
            raise ValueError("root must name a folder, found ''; . is the current one")
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", self.study):
            raise ValueError(
                f"study must be a folder name, found {shorten(self.study)}; it has letters, digits, . _ and -, and "
                "stands below runtime.root, which may be any folder"
            )
