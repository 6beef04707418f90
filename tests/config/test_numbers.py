"""Numbers in a config: each has bounds, and what is out of them is refused by one line, before anything is made."""

import math
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated

import pytest
import yaml
from helpers import CONF, QUICK, run_folders

from mtlrun.config.bounds import Bounds, Positive, bounds_of, checked
from mtlrun.config.instantiate import check_arguments, constructor_parameters, locate
from mtlrun.config.root import check_root
from mtlrun.config.settings import Runtime, Settings
from mtlrun.config.shortening import shorten
from mtlrun.config.targets import options
from mtlrun.errors import ConfigError
from mtlrun.setup.problems import Problems

BAD = [
    math.inf, -math.inf, math.nan, -1, 0, 0.5, 1e30, 1e308, -1e30, 2**63, 2**64, -(2**63), 10**400, 1e-320, "abc", "",
    True, [], {}, ["abc"], [[1]], [math.nan], [math.inf],
]  # fmt: skip

#: Arguments that the program fills in, and those that name columns, labels and tasks, which are looked up.
NO_QUANTITIES = {"input_shape", "feature_shape", "output_shape", "head"}
NO_QUANTITIES |= {
    "file_column", "targets", "classes", "positives", "positive", "split_column", "group_column", "stratify",
    "time_column", "id_column", "weight_column", "missing", "inputs", "exclude", "categorical", "dates",
    "primary",
}  # fmt: skip

# What means something after all. Everything else in BAD is refused for every argument.
SEEDS = {"split_seed", "pairs_seed", "numpy_seed", "data_seed", "scenes_seed", "mask_seed"}
SWITCHED_OFF_BY_0 = {
    "num_workers", "log_pictures", "min_delta", "max_fallbacks", "warmup_epochs", "weight_decay", "momentum",
    "dampening", "eps", "label_smoothing", "focal_gamma", "score_threshold", "num_convs", "dropout",
    "stochastic_depth", "noise",
    "texture", "missing", "max_objects", "shift", "num_sines", "num_shared_experts", "adversarial_weight",
    "orthogonality_weight", "entropy_penalty", "unused_penalty", "warmup_fraction", "strength", "regularization",
    "leak", "decay", "beta_decay", "gamma_decay", "rho", "eta", "burn_in", "step_size", "preference", "c",
    "auxiliary_weight",
}  # fmt: skip
COUNTED_FROM_0 = {"fold", "base_epoch", "ignore_index"}
END_OF_AN_INTERVAL_AT_0 = {
    "final_factor",
    "self_weight",
    "last_stage_weight",
    "sigma",
    "alpha",
    "beta",
    "gamma",
    "relax_factor",
}
OF_EITHER_SIGN = {"init", "min_losses", "correlation"}
ALLOWED = {
    0: SEEDS | SWITCHED_OFF_BY_0 | COUNTED_FROM_0 | END_OF_AN_INTERVAL_AT_0 | OF_EITHER_SIGN,
    -1: OF_EITHER_SIGN | {"ignore_index"},
}


@cache
def numeric_arguments():
    """Return {Class.argument: (class, annotation)} of all that the shipped YAML can build, and of its plain groups."""
    names = {f"{group.__module__}.{group.__name__}" for group in (Settings, Runtime)}
    for path in (path for path in CONF.rglob("*.yaml") if "hydra" not in path.parts):
        names |= set(targets_in(yaml.safe_load(path.read_text())))
    found = {}
    for target in (locate_any(name) for name in sorted(names)):
        for name, parameter in constructor_parameters(target).items():
            if is_numeric(parameter.annotation) and name not in NO_QUANTITIES:
                found[f"{target.__name__}.{name}"] = target, parameter.annotation
    return found


def locate_any(name):
    return {"Settings": Settings, "Runtime": Runtime}.get(name.split(".")[-1]) or locate(name, "target")


def targets_in(node):
    """Yield all `_target_`s below a node of YAML."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets_in(value)


def is_numeric(hint):
    """Return True if numbers may be given for a type, or lists or mappings of numbers."""
    for option in options(hint):
        if bounds_of(option) is not None:
            return True
        inner = typing.get_args(option)
        if typing.get_origin(option) in (list, tuple, Sequence, dict, Mapping) and any(map(is_numeric, inner)):
            return True
    return False


def is_bare(hint):
    """Return True if there is a type of numbers without declared bounds in an annotation."""
    if typing.get_origin(hint) is Annotated:
        return False
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (dict, Mapping):
        inner = inner[1:]  # keys are names
    return hint in (int, float) or any(map(is_bare, inner))


def takes(hint, *containers):
    return any(typing.get_origin(option) in containers for option in options(hint))


def may_be(value, name, hint):
    """Return whether a value of BAD is one that an argument may have."""
    kinds = {found[0] for found in map(bounds_of, options(hint)) if found is not None}
    if value == [] and isinstance(value, list):
        return takes(hint, list, tuple, Sequence)  # how many items it needs is the constructor's question
    if value == {} and isinstance(value, dict):
        return takes(hint, dict, Mapping)
    if isinstance(value, float) and value == 0.5:
        return float in kinds
    return type(value) is int and bool(kinds) and name in ALLOWED.get(value, ())


def test_every_number_has_bounds_of_its_own():
    foreign = ("SGD", "Adam", "AdamW")
    arguments = {name: hint for name, (_, hint) in numeric_arguments().items() if name.split(".")[0] not in foreign}
    unbounded = [name for name, hint in arguments.items() if is_bare(hint)]
    assert unbounded == []
    assert len(numeric_arguments()) > 250


def test_every_bad_value_of_every_key_is_refused_by_one_line():
    wrong = []
    for place, (target, hint) in numeric_arguments().items():
        name = place.split(".")[1]
        for value in BAD:
            problems = check_arguments(target, {name: value}, "group", complete=False)
            refused = len(problems) == 1 and problems[0].startswith(f"group.{name}") and " must be " in problems[0]
            found = f"{place}={value!r:.40}: {problems}"
            if not refused and not (may_be(value, name, hint) and not problems):
                wrong.append(found)
            if refused and ("\n" in problems[0] or len(problems[0]) > 300 or "found" not in problems[0]):
                wrong.append(found)
    assert wrong == []


@pytest.mark.parametrize("seed", [2**63, 2**64, -1, 10**400, 0.5, True, "abc", [], math.inf, math.nan])
def test_a_seed_has_64_bits(seed):
    (problem,) = [problem for problem in check_root({"seed": seed}) if problem.startswith("seed")]
    assert problem.startswith("seed must be ")
    assert not [problem for problem in check_root({"seed": 2**63 - 1}) if problem.startswith("seed")]


class Users:
    """A class without declared bounds, with one that has them, as users write them."""

    def __init__(
        self,
        plain: float = 1.0,
        count: int = 1,
        angle: Annotated[float, Bounds(0, 360, open_high=True)] = 0.0,
        items: Sequence[Positive] = (),
        limit: Annotated[int, Bounds(1, 9, limit=True, null="no limit", advice="use another class")] | None = None,
    ) -> None:
        pass


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"plain": 1e300, "count": -5, "angle": 359, "items": [1], "limit": None}, None),
        ({"plain": 1e-320}, None),
        ({"plain": math.nan}, "u.plain must be finite, found nan"),
        ({"plain": -math.inf}, "u.plain must be finite, found -inf"),
        ({"count": 2**63}, "u.count must be >= -9,223,372,036,854,775,808 and <= 9,223,372,036,854,775,807, found "),
        ({"angle": 360}, "u.angle must be in [0, 360), found 360"),
        ({"angle": "x"}, "u.angle must be a number in [0, 360), found 'x'"),
        ({"items": [1, 0]}, "u.items[1] must be > 0, found 0"),
        ({"items": [1, "x"]}, "u.items must be a list of numbers > 0, found [1, 'x']"),
        ({"items": [1e-320]}, "u.items[0] must be > 0 and not below what float32 can hold, 1.2e-38, found 1e-320"),
        ({"limit": 0}, "u.limit must be >= 1, or null for no limit, found 0; use another class"),
        ({"limit": 10}, "u.limit must be >= 1 and <= 9, or null for no limit, found 10; use another class"),
        ({"limit": 1.5}, "u.limit must be a whole number >= 1 or null, found 1.5"),
        ({"plain": 10**5000}, "u.plain must be finite, found a whole number of 16,610 bits"),
        ({"plain": "x" * 5000}, "u.plain must be a number, found 'xxx"),
        (
            {"plain": list(range(10_000))},
            "u.plain must be a number, found [0, 1, 2, 3, 4, 5, 6, 7, ... (10,000 items)]",
        ),
    ],
)
def test_classes_of_users_are_checked_by_their_annotations(arguments, problem):
    problems = check_arguments(Users, arguments, "u")
    if problem is None:
        assert problems == []
        return
    assert len(problems) == 1
    assert problems[0].startswith(problem)
    assert len(problems[0]) < 250


def test_constructors_check_bounds_when_they_are_called_from_python():
    @checked
    def make(alpha: Positive, *others: float, beta: Positive | None = None) -> float:
        return alpha

    assert make(2.0, 3.0, beta=None) == 2.0
    for arguments, options_ in (((0.0,), {}), ((1.0,), {"beta": math.nan})):
        with pytest.raises(ValueError, match=r"^(alpha|beta) must be > 0"):
            make(*arguments, **options_)
    with pytest.raises(TypeError, match="alpha"):
        make()


def test_shortened_values_keep_their_beginning_and_say_their_size():
    assert shorten({"a": [1, None, True]}) == "{'a': [1, None, True]}"
    assert shorten("x" * 120) == repr("x" * 120)
    for value in (
        "x" * 5000,
        ["x" * 5000] * 5000,
        dict.fromkeys(range(500), "x" * 500),
        10**4000,
        [[[1] * 99] * 99],
    ):
        assert len(shorten(value)) < 250


def test_a_problem_of_a_value_that_comes_from_another_key_is_not_listed_twice():
    problems = Problems([
        "optimizer.lr must be > 0, found nan",
        "tasks.left.lr must be > 0, found nan",
        "tasks.right.lr must be > 0, found -1",
        "weighting.weights[0] must be > 0, found 0",
    ])  # fmt: skip
    tasks = {"left": {"lr": math.nan}, "right": {"lr": -1}}
    problems.drop_inherited({"optimizer": {"lr": math.nan}, "tasks": tasks})
    assert [problem.split()[0] for problem in problems] == ["optimizer.lr", "tasks.right.lr", "weighting.weights[0]"]
    problems.append("tasks.left.weight must be > 0, found 0")
    problems.drop_inherited({"optimizer": {"lr": math.nan}, "tasks": tasks})
    assert "weighting.weights[0] must be > 0, found 0" not in problems
    problems.drop_inherited({"optimizer": None, "tasks": "x"})
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        problems.raise_if_any()


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=inf", "optimizer.lr=nan", "optimizer.eps=inf", "optimizer.betas=[nan,0.9]",
        "seed=18446744073709551616", "tasks.left.weight=1e308", "scheduler.warmup_epochs=1e30",
        "trainer.epochs=1000000000000",
        "trainer.log_every=[1]", "trainer.micro_batches=300", "trainer.batch_size=9223372036854775808",
        "runtime.num_workers=100000",
        "dataset.pairs_seed=-1", "dataset.size=9223372036854775807", "backbone.hidden=[9223372036854775808]",
        "backbone.hidden=[1000000,1000000]", "runtime.num_workers=1000",
    ],
)  # fmt: skip
def test_nonsense_on_the_command_line_is_one_line_and_leaves_nothing(override, mtlrun):
    code, _, err = mtlrun(*QUICK, override)
    assert code == 2, err
    assert len(err.splitlines()) == 1
    memory = "model: its parameters cannot fit into the memory of this machine"
    assert err.startswith((f"mtlrun: {override.partition('=')[0]}", f"mtlrun: {memory}")), err
    assert not run_folders()


def test_as_many_micro_batches_as_samples_are_enough(quick):
    quick("trainer.batch_size=1000000000", "trainer.micro_batches=1000000000", "trainer.epochs=1")
