"""The floors of docs/architecture.md: imports go down only, and what answers before a run knows nothing of torch."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "mtlrun"

# From the ground up: a room may import what lies beneath it, and of its own floor itself alone.
FLOORS = [
    ["errors", "lazy"],
    ["__init__"],
    ["config"],
    ["datasets", "tasks", "models", "weightings", "records"],
    ["comparison"],
    ["gradients"],
    ["training"],
    ["setup"],
    ["runs"],
    ["deployment"],
    ["sweeps"],
    ["cli"],
    ["library"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
NO_TORCH = ["errors", "lazy", "__init__", "config", "records", "comparison", "cli", "__main__"]
HEAVY = {"torch", "torchvision", "torchmetrics", "sklearn", "tensorboard", "numpy", "scipy", "pandas", "matplotlib"}

FILES = {str(path.relative_to(SOURCE)): path for path in sorted(SOURCE.rglob("*.py"))}
ROOMS = [name for name in LEVEL if (SOURCE / name).is_dir()]


def room(name):
    """Return the entry at the root that a file belongs to."""
    return name.split("/")[0].removesuffix(".py")


def imports(path, *, at_start_only):
    """Yield the modules that a file imports: all of them, or those that are imported when it is."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_start_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module == "mtlrun":
                yield from (f"mtlrun.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_entry_at_the_root_has_a_floor():
    assert {room(name) for name in FILES} == set(LEVEL)


def test_the_root_has_few_entries():
    # Beside what Python asks for, and the link by which a checkout finds its YAML.
    expected = {"__init__.py", "__main__.py", "py.typed", "__pycache__", "conf"}
    assert len({path.name for path in SOURCE.iterdir()} - expected) <= 17


def test_imports_are_absolute():
    nodes = ((name, node) for name, path in FILES.items() for node in ast.walk(ast.parse(path.read_text())))
    violations = [f"{name}:{node.lineno}" for name, node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    assert violations == []


def test_imports_go_down_only():
    violations = []
    for name, path in FILES.items():
        importer = room(name)
        # The root's exports are of higher floors; it imports them only when they are used.
        for module in imports(path, at_start_only=importer == "__init__"):
            if module.startswith("mtlrun."):
                imported = module.split(".")[1]
                imported = imported if imported in LEVEL else "__init__"
                if imported != importer and LEVEL[imported] >= LEVEL[importer]:
                    violations.append(f"{name} imports {module}")
    assert violations == []


def test_rooms_used_before_a_run_do_not_import_heavy_packages_at_start():
    violations = {
        name: heavy
        for name, path in FILES.items()
        if room(name) in NO_TORCH
        and (heavy := HEAVY & {module.split(".")[0] for module in imports(path, at_start_only=True)})
    }
    assert violations == {}


def test_no_file_is_long():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    methods = {name: length for name, length in lengths.items() if name.startswith("weightings/")}
    assert {name: length for name, length in methods.items() if length > 150 and not name.endswith("base.py")} == {}


def test_every_room_has_a_docstring_of_more_than_one_line():
    docstrings = {name: ast.get_docstring(ast.parse(FILES[f"{name}/__init__.py"].read_text())) or "" for name in ROOMS}
    assert [name for name, docstring in docstrings.items() if len(docstring.splitlines()) < 2] == []


def test_every_room_has_tests():
    assert [name for name in ROOMS if not list((TESTS / name).glob("test_*.py"))] == []


def test_files_of_tests_have_names_of_their_own():
    """pytest imports each as a module of its name, and refuses a second one."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
