"""The comparison as LaTeX, for the package booktabs: the best value of a column in bold, the second underlined."""

from collections.abc import Mapping, Sequence

from mtlrun.comparison.columns import DELTA_M, DELTA_P, Column
from mtlrun.comparison.formats.sections import Section, sections_of
from mtlrun.comparison.formats.values import count_texts, count_titles, label_of, text_of
from mtlrun.comparison.table import Comparison, ComparisonTable, Row
from mtlrun.records.printable import printable

_ESCAPED = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "\n": " ",
    "±": r"$\pm$", "†": r"$^\dagger$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "−": "$-$",
    "|": r"\textbar{}",
})  # fmt: skip
_ARROWS = {"max": r"$\uparrow$", "min": r"$\downarrow$"}
_PLACES: Mapping[int, str] = {1: r"\textbf", 2: r"\underline"}
_TITLES = {DELTA_M.key: r"$\Delta_m$\,\%", DELTA_P.key: r"$\Delta_p$\,\%"}


def as_latex(comparison: Comparison) -> str:
    """Return a tabular for each data set, with what is to be known about it in comments; it needs booktabs."""
    lines = ["% needs \\usepackage{booktabs}; best in bold, second best underlined"]
    for table in comparison.tables:
        lines += ["", f"% {_comment(table.title)}"] if len(comparison.tables) > 1 else []
        lines += latex_table(table)
        lines += [f"% warning: {_comment(warning)}" for warning in table.warnings]
        lines += [f"% {_comment(note)}" for note in [*table.notes, *table.commands]]
        for section in sections_of(table):
            lines += ["", f"% {_comment(section.title)}", *_section_table(section)]
            lines += [f"% {_comment(note)}" for note in section.notes]
    lines += [f"% {_comment(note)}" for note in comparison.notes]
    return "\n".join(lines) + "\n"


def latex_table(table: ComparisonTable) -> list[str]:
    """Return the lines of one tabular; simple predictors follow the configs below a rule."""
    titles = [*map(escape, table.labels), *map(_title, table.columns), *count_titles(table)]
    alignment = "l" * len(table.labels) + "r" * (len(titles) - len(table.labels))
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _join(titles), r"\midrule"]
    kind = "config"
    for row in table.rows:
        lines += [r"\midrule"] if row.kind != kind else []
        kind = row.kind
        cells = [_cell(row, column) for column in table.columns]
        lines.append(_join([*map(escape, label_of(row, table.labels)), *cells, *map(escape, count_texts(table, row))]))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _section_table(section: Section) -> list[str]:
    table = section.table
    alignment = "l" * table.num_left + "r" * (len(table.header) - table.num_left)
    lines = [_join(list(map(escape, line))) for line in (table.header, *table.rows)]
    begin = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", lines[0], r"\midrule"]
    return [*begin, *lines[1:], r"\bottomrule", r"\end{tabular}"]


def escape(text: str) -> str:
    """Return a text that LaTeX shows as it is."""
    return printable(text).translate(_ESCAPED)


def _title(column: Column) -> str:
    title = _TITLES.get(column.key, escape(column.title))
    return title if column.kind in ("time", "memory", "parameters") else f"{title} {_ARROWS[column.direction]}"


def _cell(row: Row, column: Column) -> str:
    """Return a cell whose mean is marked, and its spread is not."""
    text = text_of(row, column)
    cell = row.cells.get(column.key)
    mean, sign, rest = text.partition(" ")
    shown = f"${mean}$" if mean.startswith(("-", "+")) and mean.strip("-") else escape(mean)
    if cell is not None and cell.place in _PLACES:
        shown = f"{_PLACES[cell.place]}{{{shown}}}"
    return shown + sign + escape(rest)


def _join(cells: Sequence[str]) -> str:
    line = " & ".join(cells) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line  # the command before takes these for its arguments


def _comment(text: str) -> str:
    return printable(text).replace("\n", " ")
