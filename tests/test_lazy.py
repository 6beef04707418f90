"""Lazy exports: the same names and objects as with plain imports, and modules are imported only when they are used."""

import importlib
import pkgutil
import subprocess
import sys
import textwrap
import types

import pytest

import mtlrun

PACKAGES = (
    "mtlrun",
    "mtlrun.datasets",
    "mtlrun.models",
    "mtlrun.models.backbones",
    "mtlrun.models.heads",
    "mtlrun.tasks",
    "mtlrun.weightings",
)


def test_every_export_is_the_object_of_its_module():
    for name in PACKAGES:
        package = importlib.import_module(name)
        assert package.__all__
        for export in package.__all__:
            value = getattr(package, export)
            assert value is vars(package)[export], "a second access does not import again"
            assert export in dir(package)
            if getattr(value, "__module__", "").startswith("mtlrun."):
                assert getattr(importlib.import_module(value.__module__), export) is value
                assert pkgutil.resolve_name(f"{value.__module__}:{export}") is value


def test_no_export_has_the_name_of_another_module():
    for name in PACKAGES:
        package = importlib.import_module(name)
        submodules = {info.name for info in pkgutil.iter_modules(package.__path__)}
        clashes = {export for export in package.__all__ if export in submodules}
        assert {export for export in clashes if getattr(package, export).__module__ != f"{name}.{export}"} == set()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a function `join` in a module of that name, and a class `Split` in another module."""
    folder = tmp_path / "lazily"
    folder.mkdir()
    (folder / "join.py").write_text("def join(): ...\n")
    (folder / "splits.py").write_text("class Split: ...\n")
    init = """
        from typing import TYPE_CHECKING
        from mtlrun.lazy import lazy_exports
        if TYPE_CHECKING:
            from lazily.join import join as join
            from lazily.splits import Split as Split
        else:
            __all__, __getattr__, __dir__ = lazy_exports(__name__)
    """
    (folder / "__init__.py").write_text(textwrap.dedent(init))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for module in [name for name in sys.modules if name.split(".")[0] == "lazily"]:
        del sys.modules[module]


@pytest.mark.usefixtures("package")
def test_a_module_is_imported_when_its_export_is_used():
    importlib.import_module("lazily")
    assert "lazily.splits" not in sys.modules
    scope = {}
    exec("from lazily import *", scope)
    assert isinstance(scope["Split"], type)
    assert "lazily.splits" in sys.modules


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "statements",
    [
        "import lazily.join; from lazily import join",
        "from lazily.join import join as first; from lazily import join",
        "from lazily import join; import lazily.join",
        "import lazily; import lazily.join; join = lazily.join",
    ],
)
def test_an_export_with_the_name_of_its_module_is_the_function_whatever_is_imported_first(statements):
    scope = {}
    exec(statements, scope)
    assert isinstance(scope["join"], types.FunctionType)


def test_an_unknown_name_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match=r"module 'mtlrun\.weightings' has no attribute 'MDGA'"):
        _ = mtlrun.weightings.MDGA
    with pytest.raises(ImportError, match=r"cannot import name 'MDGA' from 'mtlrun\.weightings'"):
        exec("from mtlrun.weightings import MDGA")


def test_importing_one_weighting_imports_no_other_and_the_package_neither_torch_nor_hydra():
    code = "import sys, mtlrun; print(*sys.modules); from mtlrun.weightings import MGDA; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after = (set(line.split()) for line in done.stdout.splitlines())
    assert not {"torch", "numpy", "hydra"} & before
    assert "mtlrun.weightings.mgda" in after
    assert "mtlrun.weightings.nash_mtl" not in after
