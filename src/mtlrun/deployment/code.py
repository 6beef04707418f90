"""Classes of the user's that a run needs: imported from where Python finds packages, never from beside the run."""

import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtlrun.config.targets import named_packages
from mtlrun.errors import ConfigError, DataError

_KNOWN = ("mtlrun", "torch")
# Folders that the user named as those that hold such modules.
_named: list[Path] = []


def add_code(folders: Sequence[str | Path]) -> None:
    """Let Python find modules in some folders, also beside runs: whoever names them wants their code executed.

    Raises:
        ConfigError: there is no such folder.
    """
    for folder in folders:
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            raise ConfigError(f"--code {folder}: there is no such folder")
        _named.append(path)
        if str(path) not in sys.path:
            sys.path.append(str(path))


def check_code(config: Mapping[str, Any], folder: Path, groups: Collection[str]) -> None:
    """Raise DataError if a run needs code that is not there, or was found in its folder or the one above.

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
        found = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location else ())]
        places = [Path(place).resolve() for place in found if place]
        study = folder.resolve().parent
        if any(place.is_relative_to(study) and not _is_named(place) for place in places):
            raise DataError(
                f"{what}, which was found beside the run, in {study}; what comes with a run is not executed unless "
                f"you say so: read it, and then {advice}"
            )


def _is_named(place: Path) -> bool:
    return any(place.is_relative_to(folder) for folder in _named)
