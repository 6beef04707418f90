"""The floors of docs/architecture.md: imports go down only, and what answers before a run knows nothing of torch."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "mtlrun"

# From the ground up: a room may import what lies beneath it, and of its own floor itself alone.
FLOORS = [
    ["errors", "__init__"],
    ["config"],
    ["datasets", "tasks", "models", "weightings", "records"],
    ["gradients"],
    ["training"],
    ["setup"],
    ["runs"],
    ["cli"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
NO_TORCH = ["errors", "__init__", "config", "records", "cli", "__main__"]


def room(path):
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imports(path, *, at_start_only):
    """Yield the modules that a file imports: all of them, or those that are imported when it is."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_start_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "mtlrun":
                yield from (f"mtlrun.{alias.name}" for alias in node.names)
            else:
                yield node.module


FILES = sorted(SOURCE.rglob("*.py"))


def test_every_module_stands_on_a_floor():
    assert {room(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_only(path):
    own = room(path)
    for module in imports(path, at_start_only=False):
        if module.startswith("mtlrun."):
            other = module.split(".")[1]
            other = other if other in LEVEL else "__init__"
            assert other == own or LEVEL[other] < LEVEL[own], f"{path.name} imports {module}"


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in NO_TORCH], ids=lambda path: path.name)
def test_what_answers_before_a_run_does_not_import_torch(path):
    heavy = {"torch", "torchvision", "torchmetrics", "sklearn", "tensorboard", "numpy"}
    assert not heavy & {module.split(".")[0] for module in imports(path, at_start_only=True)}


def test_no_file_is_long():
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    methods = {name: length for name, length in lengths.items() if name.startswith("weightings/")}
    assert {name: length for name, length in methods.items() if length > 150 and not name.endswith("base.py")} == {}
