"""Lazy exports: the names that a package offers, each imported from its module when it is first used (PEP 562).

A package lists its exports once, as imports that type checkers and editors read, and Python does not run:

    if TYPE_CHECKING:
        from mtlrun.weightings.mgda import MGDA as MGDA
    else:
        __all__, __getattr__, __dir__ = lazy_exports(__name__)
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_exports(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package, to be called in its `__init__`.

    The exports are the imports below `if TYPE_CHECKING:` in the `__init__`. One that has the name of its module is
    imported at once, since importing that module later would put the module in the export's place.

    Args:
        package: `__name__`.
    """
    module = sys.modules[package]
    modules = _imports_for_type_checkers(module.__spec__.loader.get_source(package))  # type: ignore[union-attr]

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(module, name, value)  # Python does not ask again
        return value

    def names() -> list[str]:
        return sorted({*vars(module), *modules})

    for name, source in modules.items():
        if source == f"{package}.{name}":
            get(name)
    return sorted(modules), get, names


def _imports_for_type_checkers(source: str) -> dict[str, str]:
    """Return {name: module} of the `from module import name` that stand below `if TYPE_CHECKING:`."""
    blocks = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    return {
        alias.name: str(statement.module)
        for block in blocks
        if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
