"""mtlrun list models | weightings | ...: the options of each group, with a summary of each and its paper."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mtlrun.config.options import FACTS, entries
from mtlrun.config.suggest import suggest
from mtlrun.config.words import check_config_dir
from mtlrun.errors import ConfigError
from mtlrun.records.printable import printable

# Kind on the command line -> group of the config.
KINDS = {
    "datasets": "dataset",
    "tasks": "task",
    "models": "model",
    "backbones": "backbone",
    "weightings": "weighting",
    "optimizers": "optimizer",
    "schedulers": "scheduler",
    "trainers": "trainer",
    "experiments": "experiment",
    "studies": "study",
}
_USAGE = f"mtlrun list {' | '.join(KINDS)} [--markdown] [--config-dir <folder>]"


def main(arguments: Sequence[str]) -> int:
    """Print a table per kind; with --markdown and no kind, one table of all groups.

    On a terminal columns are aligned and wrapped; elsewhere a line per option has them with tabs in between.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print(f"usage: {_USAGE}")
        return 0
    kinds, markdown, config_dir = _parse(arguments)
    if markdown:
        tables = [kind_table(kind, config_dir) for kind in kinds] or [group_table(config_dir)]
        print(printable("\n\n".join(map(_markdown, tables))))
    elif kinds:
        _print(kinds, config_dir)
    else:
        print(f"usage: {_USAGE}")
    return 0


def kind_table(kind: str, config_dir: Path | None = None) -> list[list[str]]:
    """Return the table of one kind, a row per option: name, summary and the facts that any of the options has."""
    options = entries(KINDS[kind], config_dir)
    facts = [fact for fact in FACTS if any(fact in option.facts for option in options)]
    rows = [[option.name, option.summary, *(option.facts.get(fact, "") for fact in facts)] for option in options]
    return [["name", "summary", *facts], *rows]


def group_table(config_dir: Path | None = None) -> list[list[str]]:
    """Return the table of all groups: the options of each; weightings are divided by what they see."""
    rows = []
    for group in KINDS.values():
        parts: dict[str, list[str]] = {"losses": [], "inner products": [], "gradients": []}
        for option in entries(group, config_dir):
            parts.setdefault(option.facts.get("sees", ""), []).append(f"`{option.name}`")
        for sees, names in parts.items():
            if names:
                rows.append([f"`{group}`, sees {sees}" if sees else f"`{group}`", ", ".join(names)])
    return [["group", "options"], *rows]


def _print(kinds: Iterable[str], config_dir: Path | None) -> None:
    from rich.table import Table

    from mtlrun.records.display import as_shown, make_console

    console = make_console()
    for kind in kinds:
        header, *rows = kind_table(kind, config_dir)
        if not console.is_terminal:
            print(kind, *("\t".join(map(printable, row)) for row in (header, *rows)), sep="\n")
            continue
        table = Table(box=None, header_style="bold", title=kind, title_justify="left")
        for column in header:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(as_shown(console, cell) for cell in row))
        console.print(table)


def _markdown(table: Sequence[Sequence[str]]) -> str:
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _parse(arguments: Sequence[str]) -> tuple[list[str], bool, Path | None]:
    """Return the kinds, whether to print Markdown, and the folder of the user's options."""
    kinds: list[str] = []
    markdown, config_dir, rest = False, None, list(arguments)
    while rest:
        argument = rest.pop(0)
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            if not value and not rest:
                raise ConfigError(f"{name} needs a folder; usage: {_USAGE}")
            config_dir = Path(value or rest.pop(0)).expanduser()
            check_config_dir(config_dir)
        elif argument == "--markdown":
            markdown = True
        elif argument in KINDS:
            kinds.append(argument)
        else:
            allowed = suggest(argument, [*KINDS, "--markdown", "--config-dir"], "what can be listed")
            raise ConfigError(f"list {argument}: not known; {allowed}")
    return kinds, markdown, config_dir
