"""The options of each config group, with what the comment at the head of their files declares about them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from mtlrun.config.schema import CONFIG_MODULE, GROUPS

# What a head comment may declare in a line of its own, such as `# paper: ...`.
#   sees:   of a weighting: losses, inner products (the Gram matrix of the task gradients) or gradients
#   passes: of a weighting: backward passes per step for K tasks
#   models: of a weighting: those that it works with
#   needs:  of a weighting: positive losses, lookahead, or a primary task
#   shares: of a model: what its tasks share, and whether one representation separates it from the rest
#   size:   of a model: what it consists of for K tasks
#   sweeps: of a study: the options that it sweeps over, such as `all models`
#   command, expect, time: of a study or an experiment: how to run it, its results, and how long it takes
FACTS = ("sees", "passes", "models", "needs", "shares", "size", "sweeps", "command", "expect", "time", "paper")
_BASE = re.compile(r"defaults: \[(\w+)@_here_")


@dataclass(frozen=True)
class Entry:
    """One option of a group, as the head comment of its YAML file describes it."""

    name: str
    summary: str
    facts: dict[str, str]


def entries(group: str, config_dir: Path | None = None) -> list[Entry]:
    """Return the options of a group of the config, the user's from `config_dir` after the shipped ones.

    A file whose name begins with an underscore is not an option: it holds keys that several options share. Like its
    keys, the facts that a file declares hold for each option that begins its defaults list with it.
    """
    folders: list[Traversable] = [files(CONFIG_MODULE).joinpath(group)]
    if config_dir is not None:
        folders.append(config_dir / group)
    return [_entry(name, folder, folders) for folder in folders for name in _names(folder)]


def shipped(group: str) -> list[str]:
    """Return the names of a group's shipped options, in alphabetical order."""
    return _names(files(CONFIG_MODULE).joinpath(group))


def sweepable(group: str) -> list[str]:
    """Return the names of a group's shipped options that can be swept over: those that ask for no key besides.

    A weighting that needs a primary task does.
    """
    return [item.name for item in entries(group) if item.facts.get("needs") != "a primary task"]


def loss_scalings() -> list[str]:
    """Return the shipped weightings that may scale the losses of a weighting of gradients."""
    options = entries("weighting")
    return [item.name for item in options if item.facts["sees"] == "losses" and item.facts.get("needs") != "lookahead"]


def list_groups(config_dirs: Iterable[Path] = ()) -> str:
    """Return a line `group: option, option, ...` for each group, with the user's options from `config_dirs`."""
    lines = []
    for group in (*GROUPS, "weighting/losses", "task", "experiment", "study"):
        names = loss_scalings() if group == "weighting/losses" else shipped(group)
        names += [name for folder in config_dirs for name in _names(folder / group) if name not in names]
        lines.append(f"{group}: {', '.join(names)}\n")
    return "".join(lines)


def _names(folder: Traversable) -> list[str]:
    if not folder.is_dir():
        return []
    names = (item.name for item in folder.iterdir() if item.name.endswith(".yaml"))
    return sorted(name.removesuffix(".yaml") for name in names if not name.startswith("_"))


def _entry(name: str, folder: Traversable, others: Iterable[Traversable]) -> Entry:
    """Read the head of a file: a comment of sentences and of lines like `paper: ...`, then perhaps a defaults list."""
    summary: list[str] = []
    facts: dict[str, str] = {}
    for line in folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            if base := _BASE.match(line):
                facts = _inherited(base[1], others) | facts
            break
        content = line.lstrip("# ").strip()
        fact, _, value = content.partition(": ")
        if fact in FACTS:
            facts[fact] = value
        elif not content.startswith("@package"):
            summary.append(content)
    return Entry(name, " ".join(summary), facts)


def _inherited(base: str, folders: Iterable[Traversable]) -> dict[str, str]:
    for folder in folders:
        if folder.joinpath(f"{base}.yaml").is_file():
            return _entry(base, folder, folders).facts
    return {}
