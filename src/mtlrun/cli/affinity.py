"""mtlrun affinity <folder> ...: which tasks help or hurt each other, and which of them to train together."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mtlrun.cli.comparing import check_place, format_of, make_parser, name_left_out, number_above_0, parse
from mtlrun.comparison.affinity.findings import Findings, Source, find_affinities, measures_of
from mtlrun.comparison.affinity.formats import as_csv, as_json, as_lines, as_text_table
from mtlrun.comparison.affinity.measures import FAMILIES, MEASURES, AffinityMatrix
from mtlrun.comparison.affinity.studies import group_commands, pair_commands, template
from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.plots.files import to_png, to_svg
from mtlrun.comparison.plots.style import require_matplotlib
from mtlrun.comparison.reading import FoundRuns, despite_strange, read_runs
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError, DataError
from mtlrun.records.display import as_shown, make_console, print_line, print_table
from mtlrun.records.folder import storing
from mtlrun.records.printable import printable

# Runs that are restored without being asked for.
_MOST_RESTORED = 30
_FORMATS = ("screen", "csv", "json")
_PICTURES = (".svg", ".png")
_SUFFIXES = {".txt": "screen", ".csv": "csv", ".json": "json", ".svg": "svg", ".png": "png"}
_EPILOG = """\
measures:
  data         labels, overlap           of the training samples
  model        distance, mixing, cka     of the networks of completed runs
  training     cosine, lookahead         if the runs have logged them
  performance  gain                      of runs of two tasks against single-task runs

examples:
  mtlrun affinity outputs/mystudy
  mtlrun affinity outputs/mystudy --by cka --out cka.svg
  mtlrun affinity outputs/mystudy --by lookahead --networks 2 --study groups

docs/affinity.md says what each measure is worth."""


def main(arguments: Sequence[str]) -> int:
    """Print the affinities of the tasks of some runs; return the exit code."""
    parser = _make_parser()
    if not arguments:
        parser.print_usage()
        return 0
    parsed = parse(parser, arguments)
    outs = [Path(out).expanduser() for out in parsed.out]
    _check(parsed, outs)
    found = read_runs(parsed.folders)
    found.runs = [run for run in found.runs if not run.made_from]
    if parsed.pairs is not None:
        _print_commands(_find(found, [], {}), parsed)
        return 0
    most_runs = _MOST_RESTORED if parsed.by is None else None
    others: dict[str, Source] = {"data": _by_data, "model": partial(_by_model, most_runs=most_runs)}
    all_findings = _find(found, parsed.by or list(MEASURES), others)
    matrices = [matrix for findings in all_findings for matrix in findings.matrices]
    if not matrices:
        raise DataError("; ".join(line for findings in all_findings for line in as_lines(findings)))
    if parsed.networks is not None:
        for findings in all_findings:
            findings.suggest(parsed.networks, helpers=parsed.helpers)
    if parsed.study is not None:
        _check_one_suggestion(all_findings)
    _put(all_findings, parsed.format or "screen", outs)
    if parsed.study is not None:
        _print_commands(all_findings, parsed)
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "affinity",
        "Which tasks help or hurt each other: a matrix for each measure, and groups to train together.",
        _EPILOG,
        folders="looked at",
    )
    parser.add_argument(
        "--by", type=_measures, metavar="WHICH,...",
        help=f"{', '.join(FAMILIES)}, or single measures (default: all that can be found)",
    )  # fmt: skip
    parser.add_argument(
        "--networks", type=number_above_0, metavar="N", help="suggest groups of tasks for at most N networks"
    )
    parser.add_argument(
        "--helpers", action="store_true",
        help="a network may also train tasks that are predicted by another one, for what they give to the others",
    )  # fmt: skip
    parser.add_argument("--study", metavar="NAME", help="print the commands that train the suggested groups as a study")
    parser.add_argument(
        "--pairs", metavar="NAME",
        help="print the commands that train each pair of tasks and each task alone as a study, for --by performance",
    )  # fmt: skip
    parser.add_argument("--format", choices=_FORMATS, help="of what is printed (default: screen)")
    parser.add_argument(
        "--out", action="append", default=[], metavar="FILE",
        help="write into this file instead: .svg or .png for heat maps, .csv, .json or .txt; may be repeated",
    )  # fmt: skip
    return parser


def _measures(text: str) -> list[str]:
    chosen: list[str] = []
    for name in text.split(","):
        found = measures_of(name.strip())
        if not found:
            known = [*FAMILIES, *MEASURES]
            raise argparse.ArgumentTypeError(f"{name}: no such measure; {suggest(name, known, 'measures')}")
        chosen += [measure for measure in found if measure not in chosen]
    return chosen


def _check(parsed: argparse.Namespace, outs: Sequence[Path]) -> None:
    """Raise ConfigError for what the parser lets pass."""
    for option in ("study", "helpers"):
        if getattr(parsed, option) and parsed.networks is None:
            raise ConfigError(f"--{option}: give the number of networks, such as --networks 2")
    if parsed.pairs is not None:
        others = {"--study": parsed.study, "--networks": parsed.networks, "--by": parsed.by, "--format": parsed.format}
        given = [option for option, value in (others | {"--out": outs or None}).items() if value is not None]
        if given:
            raise ConfigError(f"--pairs only prints commands; use it without {' and '.join(given)}")
    if outs and parsed.format is not None:
        raise ConfigError(f"--format {parsed.format}: with --out the suffix of the file decides; leave it out")
    if parsed.study is not None and parsed.format not in (None, "screen"):
        raise ConfigError(f"--study prints commands, which are no {parsed.format}; write that by --out <file>")
    for out in outs:
        format_of(out, _SUFFIXES)
        check_place(out)
        if out.suffix.lower() in _PICTURES:
            require_matplotlib()
    written = {format_of(out, _SUFFIXES) for out in outs} or {parsed.format or "screen"}
    if parsed.networks is not None and parsed.study is None and not written & {"screen", "json"}:
        raise ConfigError(f"--networks: no place for groups in {' or '.join(sorted(written))}; .txt and .json have")


def _find(found: FoundRuns, wanted: Sequence[str], others: Mapping[str, Source]) -> list[Findings]:
    """Return the findings; records that make no sense are named and left out."""
    problems: list[str] = []
    try:
        all_findings, problems = despite_strange(found.runs, lambda runs: find_affinities(runs, wanted, others))
        return all_findings
    finally:
        name_left_out([*found.problems, *problems])


def _by_data(groups: Sequence[ConfigGroup]) -> tuple[list[AffinityMatrix], dict[str, str]]:
    from mtlrun.runs.affinity.labels import label_affinities  # imports torch, as the next

    return label_affinities([run for group in groups for run in group.runs])


def _by_model(groups: Sequence[ConfigGroup], *, most_runs: int | None) -> tuple[list[AffinityMatrix], dict[str, str]]:
    from mtlrun.runs.affinity.networks import network_affinities

    return network_affinities(groups, most_runs)


def _check_one_suggestion(all_findings: Sequence[Findings]) -> None:
    """Raise an error unless the groups of one matrix are there to be trained."""
    suggestions = [suggestion for findings in all_findings for suggestion in findings.suggestions]
    if len(suggestions) > 1:
        found = ", ".join(dict.fromkeys(suggestion.matrix.measure for suggestion in suggestions))
        raise ConfigError(
            f"--study: {len(suggestions)} matrices suggest groups ({found}); choose one measure with --by, and the "
            "folder of one config"
        )
    if not suggestions:
        raise DataError("--study: " + "; ".join(line for findings in all_findings for line in findings.problems))


def _put(all_findings: Sequence[Findings], chosen: str, outs: Sequence[Path]) -> None:
    """Write the files that are asked for, or else print."""
    console = make_console()
    if not outs:
        if chosen == "screen":
            _show(console, all_findings)
        else:
            print(printable(as_csv(all_findings) if chosen == "csv" else as_json(all_findings)), end="")
    for out in outs:
        with storing(out):
            if out.suffix.lower() in _PICTURES:
                from mtlrun.comparison.affinity.picture import draw

                picture = draw(all_findings)
                svg = out.suffix.lower() == ".svg"
                out.write_bytes(to_svg(picture, alone=True).encode() if svg else to_png(picture))
            elif out.suffix.lower() == ".txt":
                with open(out, "w", encoding="utf-8") as file:
                    _show(Console(file=file, width=80, highlight=False, markup=False, emoji=False), all_findings)
            else:
                text = as_csv(all_findings) if out.suffix.lower() == ".csv" else as_json(all_findings)
                out.write_text(text, encoding="utf-8")
        print(printable(f"written to {out}"))


def _show(console: Console, all_findings: Sequence[Findings]) -> None:
    """Print each matrix with how to read it; one that is too wide in parts."""

    def write(line: str) -> None:
        console.print(Text(as_shown(console, line)))

    for findings in all_findings:
        if len(all_findings) > 1:
            write(f"data: {findings.title}")
        for matrix in findings.matrices:
            table = as_text_table(matrix).map(lambda text: as_shown(console, text))
            write(f"{matrix.measure}: {matrix.title}")
            write(matrix.about.reading)
            for part in table.divide(console.width - 1):
                print_table(console, part)
            runs = max((count for row in matrix.counts for count in row), default=0)
            several = [f"mean over {runs} runs"] if runs > 1 else []
            write("; ".join([*matrix.notes, *several]) + "\n")
        for line in as_lines(findings):
            write(line)


def _print_commands(all_findings: Sequence[Findings], parsed: argparse.Namespace) -> None:
    """Print the commands, each in a line, ready to paste."""
    console = make_console()
    for findings in all_findings:
        if parsed.pairs is not None:
            group, commands = template(findings.groups), pair_commands(findings.groups, parsed.pairs)
        elif findings.suggestions:
            (suggestion,) = findings.suggestions
            group = template(findings.groups, suggestion.matrix.label)
            commands = group_commands(group, suggestion.networks, parsed.study)
        else:
            continue
        print_line(console, f"# as {group.runs[0].record.run_id} was trained:")
        for command in commands:
            console.print(printable(command), soft_wrap=True)
