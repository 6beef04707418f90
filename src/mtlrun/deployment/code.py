"""Classes of the user's that a run needs: imported from where Python finds packages, never from beside the run."""

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtlrun.config.targets import named_packages
from mtlrun.errors import DataError

_KNOWN = ("mtlrun", "torch")


def check_code(config: Mapping[str, Any], folder: Path, groups: Collection[str]) -> None:
    """Raise DataError if a run needs code that is not there, or only in its folder or the one above.

    What is in a run's folder came with it, from whoever trained it: to be read, not to be executed.

    Args:
        config: of the run.
        folder: of the run.
        groups: of the config whose classes are needed.
    """
    needed = named_packages({group: config[group] for group in groups if group in config})
    for package in sorted(needed.difference(_KNOWN)):
        what = f"{folder}: this run needs classes of its author's package {package}"
        advice = f"install {package}, or name the folder that holds it with --code <folder>"
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            raise DataError(f"{what}, which cannot be imported; {advice}")
        places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location else ())]
        study = folder.resolve().parent
        if any(place and Path(place).resolve().is_relative_to(study) for place in places):
            raise DataError(
                f"{what}, which was found beside the run, in {study}; what comes with a run is not executed: move it "
                f"elsewhere once you have read it, and {advice}"
            )
