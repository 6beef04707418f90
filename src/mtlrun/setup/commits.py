"""Commits of the code that a run is made with: that of mtlrun, and that of the current folder."""

import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import mtlrun

# Of another repository, if the program is started by a hook of it.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


def commit_of_folder() -> dict[str, Any] | None:
    """Return the commit of the repository around the current folder, None outside one.

    Returns:
        A dictionary: `commit`, and `dirty`, whether files differ from it, None if that cannot be found out in time.
    """
    return _state(Path.cwd(), ".", ":/")


def commit_of_mtlrun() -> dict[str, Any] | None:
    """Return the commit that the code of mtlrun is of, None if that is not known, as of a release.

    Returns:
        As `commit_of_folder`; only mtlrun's code and configs count as files.
    """
    package = Path(mtlrun.__file__).parent
    # A package that is installed in an environment may lie in the repository of somebody's project.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None:
        return _state(package, ".", ":/conf")
    try:
        origin = json.loads(distribution("mtlrun").read_text("direct_url.json") or "{}")
        return {"commit": origin["vcs_info"]["commit_id"], "dirty": False}  # pip install git+https://...
    except (PackageNotFoundError, ValueError, KeyError):
        return None


def _state(folder: Path, *paths: str) -> dict[str, Any] | None:
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--", *paths)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {key: value for key, value in os.environ.items() if key not in _ELSEWHERE}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # others may be committing
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
