"""A piece is a class, its export, its YAML file and its test: whatever one of them lacks is named."""

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

import pytest
from helpers import shipped_node

import mtlrun.datasets
import mtlrun.models
import mtlrun.models.backbones
import mtlrun.tasks
import mtlrun.weightings
from mtlrun.config.compose import compose
from mtlrun.config.options import entries, shipped
from mtlrun.models import MultiTaskModel
from mtlrun.models.backbones import Backbone
from mtlrun.models.backbones.point import Point
from mtlrun.tasks import Objective, Task

TESTS = Path(__file__).parents[1]
# group of the config: (package, base class, folder of tests)
PIECES = {
    "weighting": (mtlrun.weightings, mtlrun.weightings.Weighting, "weightings"),
    "model": (mtlrun.models, MultiTaskModel, "models"),
    "backbone": (mtlrun.models.backbones, Backbone, "models"),
    "dataset": (mtlrun.datasets, mtlrun.datasets.MultiTaskDataset, "datasets"),
    "task": (mtlrun.tasks, Task, "tasks"),
}
# A task without data and its backbone: only the YAML of datasets without data names them.
INTERNAL = {Objective, Point}


def name_of(cls):
    return f"{cls.__module__}.{cls.__name__}"


@cache
def classes(group):
    """Return {class: exported name or None} of the concrete public classes in the modules of the group's package."""
    package, base, _ = PIECES[group]
    exported = {getattr(package, name): name for name in package.__all__}
    found = {}
    for item in pkgutil.iter_modules(package.__path__):
        if item.ispkg or item.name == "base":
            continue
        module = importlib.import_module(f"{package.__name__}.{item.name}")
        for name, value in vars(module).items():
            concrete = inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
            if concrete and value not in INTERNAL and value.__module__ == module.__name__ and not name.startswith("_"):
                found[value] = exported.get(value)
    return found


@cache
def targets(group):
    """Return {name of a class: options whose YAML builds it}."""
    found = {}
    for name in shipped(group):
        # A dataset's file overrides choices of the root, so that it composes only below it.
        node = compose([f"dataset={name}"])["dataset"] if group == "dataset" else shipped_node(group, name)
        found.setdefault(node["_target_"], []).append(name)
    return found


@pytest.mark.parametrize("group", PIECES)
def test_a_piece_is_complete(group):
    package, _, folder = PIECES[group]
    tests = "".join(path.read_text() for path in (TESTS / folder).glob("test_*.py"))
    built, missing = targets(group), []
    for cls, exported in classes(group).items():
        options = built.get(f"{package.__name__}.{cls.__name__}", [])
        test = f"tests/{folder}/test_{cls.__module__.rsplit('.', 1)[1]}.py"
        if exported is None:
            missing.append(f"{name_of(cls)} is not exported by {package.__name__}")
        if not options:
            missing.append(f"{name_of(cls)} has no YAML file: no conf/{group}/*.yaml has it as _target_")
        if group in ("weighting", "model") and not (TESTS.parent / test).is_file():
            missing.append(f"{name_of(cls)} has no test file {test}")
        if not any(name in tests for name in (cls.__name__, *options)):
            missing.append(f"{name_of(cls)} is named by no test in tests/{folder}")
    exported_names = {f"{package.__name__}.{name}" for name in classes(group).values()}
    missing += [
        f"conf/{group}/{options[0]}.yaml: {target} is no class of {package.__name__}, or not exported by it"
        for target, options in built.items()
        if target not in exported_names
    ]
    assert missing == []


def test_every_piece_describes_itself():
    missing = []
    for group in PIECES:
        for entry in entries(group):
            required = {"weighting": ("sees", "passes", "models", "paper"), "model": ("shares", "size")}.get(group, ())
            if not entry.summary:
                missing.append(f"conf/{group}/{entry.name}.yaml: no sentence at its head")
            missing += [
                f"conf/{group}/{entry.name}.yaml: no line `# {fact}: ...` in its head"
                for fact in required
                if not entry.facts.get(fact)
            ]
    assert missing == []


@pytest.mark.parametrize("group", PIECES)
def test_every_class_explains_itself(group):
    assert [name_of(cls) for cls in classes(group) if not (cls.__doc__ or "").strip()] == []
