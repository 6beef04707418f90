"""The formats of a comparison: each shows the same cells, and none loses or rounds what it must not."""

import csv
import io
import json
import re
from math import isnan, nan

import pandas as pd
import pytest
from synthetic import make_record, make_study, write_records

from mtlrun.comparison.building import compare
from mtlrun.comparison.formats.csv import as_csv
from mtlrun.comparison.formats.json import as_json
from mtlrun.comparison.formats.latex import as_latex, escape
from mtlrun.comparison.formats.markdown import as_markdown
from mtlrun.comparison.formats.raw import COLUMNS, raw_lines
from mtlrun.comparison.formats.screen import as_text
from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.run import Run

NAMES = {"equal": [0.9, 0.7], "mgda": [0.8, 0.75], "dwa": [0.85, 0.6]}


def comparison(*more, **options):
    records = make_study(NAMES, **options) + make_study({"single": [0.8, 0.7]}, key="model")
    return compare(list(map(Run, [*records, *more])))


@pytest.fixture(scope="module")
def found():
    return comparison(make_record(weighting="rlw", status="diverged"))


def cells_of(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_aligned_and_has_the_best_in_bold(found):
    text = as_markdown(found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    rows = {tuple(cells_of(line)[:2]): cells_of(line) for line in lines}
    left = cells_of(lines[0]).index("left accuracy ↑")
    bold = [name for name, cells in rows.items() if cells[left].startswith("**")]
    assert bold == [("hard", "equal")]
    assert rows["hard", "rlw"][-1] == "0 of 3, 1 diverged, 2 missing"
    assert rows["hard", "rlw"][left] == "-"
    assert "- Δm and Δp: change against the single-task baseline in %" in text
    assert set(cells_of(lines[1])[:2]) == {"------", "---------"}
    assert all(cell.endswith(":") for cell in cells_of(lines[1])[2:])


def test_latex_has_the_best_in_bold_the_second_underlined_and_no_sign_that_it_would_obey(found):
    text = as_latex(found)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert r"left accuracy $\uparrow$" in rows[0]
    assert r"$\Delta_m$\,\% $\downarrow$" in rows[0]
    by_name = {tuple(row.split(" & ")[:2]): row.split(" & ") for row in rows}
    assert re.fullmatch(r"\\textbf\{0\.\d{4}\} \$\\pm\$ 0\.\d{4}", by_name["hard", "equal"][2])
    assert by_name["hard", "dwa"][2].startswith(r"\underline{")
    assert re.fullmatch(r"\\textbf\{\$-\d+\.\d\d\$\} \$\\pm\$ \d\.\d\d", by_name["hard", "equal"][4])
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{llrrrrrrrrr}"):
        assert part in text
    assert escape("a_b & 50% {x} \\ $ # ~^") == (
        r"a\_b \& 50\% \{x\} \textbackslash{} \$ \# \textasciitilde{}\textasciicircum{}"
    )


def test_csv_has_numbers_that_are_not_rounded(found):
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    (table,) = found.tables
    assert [row["name"] for row in rows] == [row.name for row in table.rows]
    for row, expected in zip(rows, table.rows, strict=True):
        for column in table.columns:
            cell = expected.cells.get(column.key)
            if cell is None:
                assert [row[column.key], row[f"{column.key} std"], row[f"{column.key} n"]] == ["", "", ""]
            else:
                assert float(row[column.key]) == cell.mean
                assert row[f"{column.key} n"] == str(cell.n)
                assert float(row[f"{column.key} std"] or "nan") == pytest.approx(cell.std, nan_ok=True, abs=0)
    assert rows[-1]["missing"] in ("0", "2")
    assert sum(int(row["diverged"]) for row in rows) == 1


def test_json_has_everything_and_is_json():
    undefined = {"left": {"accuracy": nan, "loss": 0.1}, "right": {"accuracy": 0.5, "loss": 0.1}}
    text = as_json(comparison(make_record(weighting="rlw", test=undefined)))

    def refuse(name):
        raise AssertionError(name)

    content = json.loads(text, parse_constant=refuse)
    (table,) = content["tables"]
    by_name = {row["name"]: row for row in table["rows"]}
    cell = by_name["hard, equal"]["cells"]["left/accuracy"]
    assert [value["repetition"] for value in cell["values"]] == [[0, None], [1, None], [2, None]]
    assert cell["mean"] == sum(value["value"] for value in cell["values"]) / 3
    assert by_name["hard, rlw"]["cells"]["left/accuracy"]["mean"] is None
    assert by_name["hard, rlw"]["missing"] == [[1, None], [2, None]]
    assert [run["state"] for run in by_name["hard, equal"]["runs"]] == ["completed"] * 3
    assert {"key": "delta_m", "title": "Δm %", "direction": "min", "kind": "delta", "task": "", "metric": ""} in (
        table["columns"]
    )


def test_raw_numbers_are_a_line_per_run_task_metric_split_and_evaluation(tmp_path):
    records = make_study(NAMES, seeds=2)
    records[0].selection[0] |= {"step": 48, "epoch": 2}
    write_records(tmp_path, records, evaluations=3)
    frame = pd.DataFrame(list(raw_lines(compare_folders([tmp_path]))))
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 6 * 2 * (3 + 2 * 3 + 2)  # runs x tasks x (training losses, evaluations, results)
    run = frame[(frame.run_id == records[0].run_id) & (frame.task == "left")]
    val = run[(run.split == "val") & (run.metric == "accuracy")]
    assert list(val.step) == [24, 48, 72]
    assert list(val.selected) == [0, 1, 0]
    assert list(val.value) == pytest.approx([records[0].val["left"]["accuracy"] * k / 3 for k in (1, 2, 3)])
    (result,) = run[(run.split == "test") & (run.metric == "accuracy")].itertuples()
    assert (result.value, result.step, result.direction) == (records[0].test["left"]["accuracy"], 48, "max")
    assert set(frame[frame.split == "train"].metric) == {"loss"}


def test_what_is_no_letter_is_harmless_in_each_format(tmp_path):
    """Names of tasks come from the headers of other people's tables."""
    name = "a|b\x1b[31m"
    test = {name: {"accuracy": 0.5, "loss": 0.1}}
    records = [make_record(weighting=w, tasks=(name,), test=test) for w in ("equal", "x_y&z")]
    found = compare(list(map(Run, records)))
    for convert in (as_text, as_markdown, as_latex):
        assert "\x1b" not in convert(found)
    assert r"a\|b\[31m" in as_markdown(found)
    assert r"x\_y\&z" in as_latex(found)
    (line, *_) = raw_lines(found)
    assert line["task"] == name


def test_a_value_that_is_not_a_number_is_shown_as_a_dash():
    undefined = {"left": {"accuracy": nan, "loss": 0.1}}
    found = compare([Run(make_record(seed, tasks=("left",), test=undefined)) for seed in (0, 1)])
    (row,) = found.tables[0].rows
    assert isnan(row.cells["left/accuracy"].mean)
    assert "- (0 of 2)" in as_text(found)
