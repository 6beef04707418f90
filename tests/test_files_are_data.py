"""Files are data: nothing in the source executes what a file contains, or unpacks it wherever it says."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("src/mtlrun", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
EXECUTING = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code", "imp"}
# Of a module, what may be used; of others, anything. To write YAML executes nothing.
ALLOWED = {"pickle": {"UnpicklingError"}, "yaml": {"safe_load", "safe_dump", "dump", "SafeDumper", "YAMLError"}}
# Calls that need an argument, and its value.
NEEDED = {
    ("torch", "load"): ("weights_only", True),
    ("numpy", "load"): ("allow_pickle", False),
    ("np", "load"): ("allow_pickle", False),
}
FORBIDDEN = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}
FORBIDDEN_METHODS = {
    "extractall", "extract", "unpack_archive", "read_pickle", "unsafe_load", "full_load", "system", "popen",
    "load_state_dict_from_url",
}  # fmt: skip


def violations(tree):
    """Yield (line, what) of what executes files or unpacks them."""
    imported = {}
    for node in ast.walk(tree):
        names = [
            (alias.name, alias.asname or alias.name)
            for alias in getattr(node, "names", [])
            if isinstance(alias, ast.alias)
        ]
        if isinstance(node, ast.Import):
            imported |= {shown: name for name, shown in names}
            yield from ((node.lineno, name) for name, _ in names if name.split(".")[0] in EXECUTING)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            if module in EXECUTING:
                yield node.lineno, module
            allowed = ALLOWED.get(module)
            yield from ((node.lineno, name) for name, _ in names if allowed is not None and name not in allowed)
            yield from ((node.lineno, name) for name, _ in names if (node.module, name) in NEEDED)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = imported.get(node.value.id, node.value.id)
            if module in ALLOWED and node.attr not in ALLOWED[module]:
                yield node.lineno, f"{module}.{node.attr}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in FORBIDDEN:
            yield node.lineno, function.id
        if isinstance(function, ast.Attribute):
            if function.attr in FORBIDDEN_METHODS:
                yield node.lineno, function.attr
            place = (function.value.id, function.attr) if isinstance(function.value, ast.Name) else ()
            if place in NEEDED:
                name, value = NEEDED[place]
                given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                if given.get(name) is not value:
                    yield node.lineno, f"{'.'.join(place)} without {name}={value}"
            if any(word.arg == "shell" for word in node.keywords):
                yield node.lineno, "shell"


def test_nothing_executes_or_unpacks_a_file():
    found = [f"{name}:{line}: {what}" for name, tree in TREES.items() for line, what in violations(tree)]
    assert found == []


def test_the_search_finds_what_it_is_for():
    source = """
import pickle, yaml, torch, numpy as np, joblib
from pickle import loads
from torch import load
pickle.load(f); yaml.load(f); yaml.safe_load(f); torch.load(f); torch.load(f, weights_only=True)
np.load(f); np.load(f, allow_pickle=True); np.load(f, allow_pickle=False)
eval(x); archive.extractall(p); subprocess.run(c, shell=True)
"""
    assert sorted(line for line, _ in violations(ast.parse(source))) == [2, 3, 4, 5, 5, 5, 6, 6, 7, 7, 7]
