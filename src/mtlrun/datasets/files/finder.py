"""The files that the cells of a table name, as people and their tools write names."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from PIL import Image

from mtlrun.errors import DataError


def below(folder: Path, name: str) -> Path:
    """Return the path of a file that a table or a list names, whoever wrote it; links in the folder are followed.

    Raises:
        DataError: the name leads out of the folder.
    """
    path = folder / name
    if ".." in Path(name).parts or not path.is_relative_to(folder):
        raise DataError(f"{name!r} leads out of the folder {folder}")
    return path


class FileFinder:
    """Finds files below a folder by names that may lack the ending, or have it in other case, or backslashes.

    A name that is a file is that file. Otherwise the folder is looked through for a file whose name differs in case
    alone, and then for one with an ending that Pillow knows; two of a kind are refused.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._listings: dict[Path, _Listing] = {}
        #: How many names were not those of the files.
        self.corrected = 0

    def find(self, name: str) -> Path | None:
        """Return the file of a name, None if there is none.

        Raises:
            DataError: the name leads out of the folder, or fits several files.
        """
        path = below(self._root, name)
        if path.is_file():
            return path
        relative = Path(name.replace("\\", "/"))
        folder = below(self._root, relative.as_posix()).parent
        if folder not in self._listings:
            self._listings[folder] = _Listing(folder)
        fitting = self._listings[folder].fitting(relative.name)
        if len(fitting) > 1:
            raise DataError(f"{name!r} may be {' or '.join(sorted(fitting))} in {folder}; write the whole name")
        if not fitting:
            return None
        self.corrected += 1
        return folder / next(iter(fitting))


class _Listing:
    """The names of the files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The names, by their lower case and by their lower case without the ending of an image."""
        known: dict[str, list[str]] = {}
        endings = {ending.lower() for ending in Image.registered_extensions()}
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else []:
            known.setdefault(path.name.lower(), []).append(path.name)
            if path.suffix.lower() in endings:
                known.setdefault(f"{path.stem.lower()}.*", []).append(path.name)
        return known

    def fitting(self, name: str) -> Collection[str]:
        """Return the names of the files that `name` may be."""
        if name in self._by_name.get(name.lower(), []):
            return [name]
        return self._by_name.get(name.lower(), []) or self._by_name.get(f"{name.lower()}.*", [])
