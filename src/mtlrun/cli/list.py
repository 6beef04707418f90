"""mtlrun list models | weightings | datasets | ...: what there is, with a line on each and its paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from rich.table import Table

from mtlrun.config.schema import CONFIG_MODULE
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError
from mtlrun.records.display import make_console

# What the user types -> the group of the config.
KINDS = {
    "models": "model",
    "weightings": "weighting",
    "datasets": "dataset",
    "backbones": "backbone",
    "optimizers": "optimizer",
    "schedulers": "scheduler",
    "experiments": "experiment",
    "studies": "study",
}
# What a head comment may say in a line of its own.
#   sees:   of a weighting: losses, inner products (the Gram matrix of the task gradients) or gradients
#   passes: backward passes per step for K tasks
#   models: those that the weighting works with
#   shares: of a model: what its tasks share, and whether one representation separates it from the rest
FACTS = ("sees", "passes", "models", "shares", "size", "paper")
_USAGE = f"mtlrun list {' | '.join(KINDS)} [--config-dir <folder>]"


@dataclass(frozen=True)
class Entry:
    """One option of a group: the head comment of its YAML file."""

    name: str
    summary: str
    facts: dict[str, str]  # what the head comment says in lines of the form `paper: ...`


def main(arguments: Sequence[str]) -> int:
    """Print one table for each kind that is asked for."""
    kinds, config_dir = _parse(arguments)
    if not kinds:
        print(f"usage: {_USAGE}")
        return 0
    console = make_console()
    for kind in kinds:
        table = Table(box=None, header_style="bold", title=kind, title_justify="left")
        found = entries(KINDS[kind], config_dir)
        facts = list(dict.fromkeys(fact for entry in found for fact in entry.facts))
        for column in ("name", "what it does", *facts):
            table.add_column(column, overflow="fold")
        for entry in found:
            table.add_row(entry.name, entry.summary, *(entry.facts.get(fact, "") for fact in facts))
        console.print(table)
    return 0


def entries(group: str, config_dir: Path | None = None) -> list[Entry]:
    """Return the options of a group of the config, the user's from `config_dir` after the shipped ones.

    A file whose name begins with an underscore is not an option: it holds keys that several options share.
    """
    found = _read(files(CONFIG_MODULE).joinpath(group))
    if config_dir is not None:
        found += _read(config_dir / group)
    return found


def _read(folder: Traversable) -> list[Entry]:
    if not folder.is_dir():
        return []
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".yaml") and item.name[0] != "_")
    return [_entry(name.removesuffix(".yaml"), folder.joinpath(name).read_text(encoding="utf-8")) for name in names]


def _entry(name: str, text: str) -> Entry:
    """Read the comment at the head of a file: sentences, then lines like `paper: ...`."""
    summary, facts = [], {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        content = line.lstrip("# ").strip()
        fact, _, value = content.partition(": ")
        if fact in FACTS:
            facts[fact] = value
        elif not content.startswith("@package"):
            summary.append(content)
    return Entry(name, " ".join(summary), facts)


def _parse(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    kinds, config_dir, rest = [], None, list(arguments)
    while rest:
        argument = rest.pop(0)
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            if not value and not rest:
                raise ConfigError(f"{name} needs a folder; usage: {_USAGE}")
            config_dir = Path(value or rest.pop(0))
            if not config_dir.is_dir():
                raise ConfigError(f"{name}: there is no folder {config_dir}")
        elif argument in ("-h", "--help"):
            return [], None
        elif argument in KINDS:
            kinds.append(argument)
        else:
            raise ConfigError(f"list {argument}: not known; {suggest(argument, KINDS, 'what can be listed')}")
    return kinds, config_dir
