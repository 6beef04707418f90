"""Bounds of numbers, declared by annotations: `alpha: NonNegative = 1.5`.

They are checked wherever a config is: `mtlrun.config.values` reads them as it reads types. `checked` makes a
constructor check them as well when it is called from Python. A number whose bounds are not declared must be finite.
"""

import functools
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, ParamSpec, TypeAlias, TypeVar

from mtlrun.config.shortening import shorten
from mtlrun.config.targets import options

P = ParamSpec("P")
R = TypeVar("R")

#: What exceeds it is a slip of the keyboard, whatever the number is for.
LARGEST = 10**9
#: The smallest number that float32 holds with all of its digits.
SMALLEST = 2.0**-126


@dataclass(frozen=True)
class Bounds:
    """The interval of the numbers that are allowed.

    Args:
        low, high: the ends; None for any finite number.
        open_low, open_high: whether an end is not allowed itself.
        limit: whether `high` only keeps absurd numbers out, so that a message names it only where it is exceeded. Of an
            interval around 0, this goes for `low`, too.
        smallest: a real number that is closer to 0 is refused, unless it is 0.
        finite: whether infinity and NaN are refused.
        null: what null means where it is allowed beside numbers, such as "no clipping".
        advice: what to do instead, at the end of the message.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    limit: bool = False
    smallest: float = SMALLEST
    finite: bool = True
    null: str = ""
    advice: str = ""

    def allow(self, value: float) -> bool:
        """Return True if a number is within the bounds."""
        if not abs(value) <= sys.float_info.max:
            return not self.finite
        if 0 < abs(value) < self.smallest:
            return False
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        return self.high is None or value < self.high or (not self.open_high and value == self.high)

    def describe(self, value: float | None = None) -> str:
        """Return which numbers are allowed, such as `>= 0`, with the limit that `value` exceeds, if it does."""
        if self.low is None or self.high is None:
            return "finite"
        if not self.limit:
            return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"
        signed = self.low < 0
        ends = [] if signed else [f"{'>' if self.open_low else '>='} {self.low:,}"]
        if value is None:
            pass
        elif abs(value) == math.inf or (signed and value != value):
            ends.append("finite")
        elif 0 < abs(value) < self.smallest:
            ends.append(f"{'0, or ' if self.allow(0) else ''}not below what float32 can hold, {self.smallest:.2g}")
        elif value > self.high or (signed and value < self.low):
            ends = [f"{'>' if self.open_low else '>='} {self.low:,}", f"<= {self.high:,}"]
        return " and ".join(ends)


ANY_FLOAT, ANY_INT = Bounds(smallest=0), Bounds(-(2**63), 2**63 - 1, limit=True)
_REAL = Bounds(-LARGEST, LARGEST, limit=True)
_POSITIVE = replace(_REAL, low=0, open_low=True)
_FRACTION = Bounds(0, 1)

#: A number that is looked up among others, such as a label: it must not be computed with.
Written: TypeAlias = Annotated[float, Bounds(smallest=0, finite=False)]

# Real numbers.
Real: TypeAlias = Annotated[float, _REAL]
NonNegative: TypeAlias = Annotated[float, replace(_REAL, low=0)]
Positive: TypeAlias = Annotated[float, _POSITIVE]
Fraction: TypeAlias = Annotated[float, _FRACTION]
FractionBelowOne: TypeAlias = Annotated[float, replace(_FRACTION, open_high=True)]
FractionAboveZero: TypeAlias = Annotated[float, replace(_FRACTION, open_low=True)]
OpenFraction: TypeAlias = Annotated[float, replace(_FRACTION, open_low=True, open_high=True)]
#: An exponent, in powers of losses, norms or step numbers.
Exponent: TypeAlias = Annotated[float, replace(_REAL, low=0, high=100)]
#: A number that the exponential function is taken of.
Logarithm: TypeAlias = Annotated[float, Bounds(-50, 50)]
#: How long something lasts in passes over the data for training, whole ones or not.
Epochs: TypeAlias = Annotated[float, replace(_REAL, low=0, high=10**6)]
#: A learning rate, where null is that of the run.
LearningRate: TypeAlias = Annotated[float, replace(_POSITIVE, null="optimizer.lr")]
#: The largest norm of a gradient.
MaxNorm: TypeAlias = Annotated[float, replace(_POSITIVE, null="no clipping")]

# Whole numbers.
Count: TypeAlias = Annotated[int, Bounds(1, LARGEST, limit=True)]
CountOrZero: TypeAlias = Annotated[int, Bounds(0, LARGEST, limit=True)]
#: Units, channels, bins and the like, of which a network has parameters.
Width: TypeAlias = Annotated[int, Bounds(1, 10**6, limit=True)]
#: How many classes, levels or labels are told apart.
Classes: TypeAlias = Annotated[int, Bounds(2, 10**6, limit=True)]
#: The index of a class.
ClassIndex: TypeAlias = Annotated[int, Bounds(-(10**6), 10**6, limit=True)]
#: Parts of a network that are made one by one, such as experts and layers.
Parts: TypeAlias = Annotated[int, Bounds(1, 1000, limit=True)]
PartsOrZero: TypeAlias = Annotated[int, Bounds(0, 1000, limit=True)]
#: Experts of a model that needs several, and of one that has some for all tasks and some for each.
Experts: TypeAlias = Annotated[int, Bounds(2, 1000, limit=True, advice="a single one is model=hard")]
SharedExperts: TypeAlias = Annotated[int, Bounds(1, 1000, limit=True, advice="model=single has none")]
TaskExperts: TypeAlias = Annotated[int, Bounds(1, 1000, limit=True, advice="model=mmoe has none")]
#: A factor of the widths of a network.
WidthFactor: TypeAlias = Annotated[float, replace(_POSITIVE, high=1000)]
#: Pixels along an edge of an image.
Pixels: TypeAlias = Annotated[int, Bounds(1, 10_000, limit=True)]
#: Into how many folds samples are divided.
Folds: TypeAlias = Annotated[int, Bounds(2, LARGEST, limit=True, null="no folds")]
#: Samples that are made, not read.
Generated: TypeAlias = Annotated[int, Bounds(1, 10**8, limit=True)]
#: A seed, of which NumPy and PyTorch take 64 bits, and NumPy's RandomState 32.
Seed: TypeAlias = Annotated[int, Bounds(0, 2**63 - 1, limit=True)]
Seed32: TypeAlias = Annotated[int, Bounds(0, 2**32 - 1, limit=True)]

#: For classes of packages whose annotations have no bounds: {package: {argument: annotation}}.
FOREIGN: Mapping[str, Mapping[str, Any]] = {
    "torch.optim": {
        "lr": Positive,
        "betas": tuple[FractionBelowOne, FractionBelowOne],
        "eps": Fraction,
        "weight_decay": NonNegative,
        "momentum": Fraction,
        "dampening": Fraction,
        "alpha": Fraction,
        "lr_decay": NonNegative,
        "initial_accumulator_value": NonNegative,
        "momentum_decay": NonNegative,
    }
}


def bounds_of(hint: Any) -> tuple[Any, Bounds] | None:
    """Return `int` or `float`, and the bounds of the numbers; None if the hint is no type of numbers."""
    base, *metadata = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    if base not in (int, float):
        return None
    default = ANY_INT if base is int else ANY_FLOAT
    return base, next((item for item in metadata if isinstance(item, Bounds)), default)


def is_number(value: Any) -> bool:
    """Return True for whole and real numbers; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def exceeds(value: Any, hint: Any) -> str | None:
    """Return which numbers `hint` allows, and what else, if `value` is a number out of bounds; None if it is allowed.

    What is not a number is allowed, and so is a number where `hint` allows none: types are not checked here.
    """
    choices = options(hint)
    numeric = [found for found in map(bounds_of, choices) if found is not None]
    if not is_number(value) or not numeric or any(bounds.allow(value) for _, bounds in numeric):
        return None
    bounds = numeric[0][1]
    words = [option for option in choices if typing.get_origin(option) is Literal]
    others = [str(item) for option in words for item in typing.get_args(option)]
    if type(None) in choices:
        others.append(f"null for {bounds.null}" if bounds.null else "null")
    described = bounds.describe(value)
    return f"{', or '.join([described, *others])}, found {shorten(value)}{bounds.advice and f'; {bounds.advice}'}"


def violations(value: Any, hint: Any, name: str) -> Iterator[str]:
    """Yield a sentence for each number, in `value` or among its items, that is out of bounds."""
    allowed = exceeds(value, hint)
    if allowed is not None:
        yield f"{name} must be {allowed}"
    for option in options(hint):
        inner = typing.get_args(option)
        container = typing.get_origin(option)
        if isinstance(value, Mapping) and container in (dict, Mapping):
            for key, item in value.items():
                yield from violations(item, inner[1], f"{name}.{key}")
        elif isinstance(value, list | tuple) and container in (list, tuple, Sequence):
            hints = inner if len(inner) == len(value) and Ellipsis not in inner else inner[:1] * len(value)
            for index, (item, of_item) in enumerate(zip(value, hints, strict=True)):
                yield from violations(item, of_item, f"{name}[{index}]")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return a constructor, or function, that raises ValueError if a number is out of the bounds of its annotation."""

    @functools.cache
    def hints() -> dict[str, Any]:
        found = typing.get_type_hints(function, include_extras=True)
        return {name: hint for name, hint in found.items() if name != "return"}

    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            given = {}  # which the call explains better
        for name in given.keys() & hints().keys():
            for problem in violations(given[name], hints()[name], name):
                raise ValueError(problem)
        return function(*args, **kwargs)

    return wrapper


def check_fields(instance: Any) -> None:
    """Raise ValueError if a number among the fields of a dataclass is out of the bounds of its annotation."""
    for name, hint in typing.get_type_hints(type(instance), include_extras=True).items():
        for problem in violations(getattr(instance, name), hint, name):
            raise ValueError(problem)
