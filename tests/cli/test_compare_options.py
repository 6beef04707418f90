"""The options of mtlrun compare: formats, files, and what is refused in one line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "comparison"))

from synthetic import make_record, make_study, write_records


@pytest.fixture
def study():
    write_records("study", make_study({"equal": 0.9, "mgda": 0.8}, seeds=2), evaluations=2)


@pytest.mark.usefixtures("study")
def test_each_format_goes_to_a_file_or_to_the_screen(mtlrun):
    for suffix, form, beginning in [(".md", "markdown", "| weighting |"), (".csv", "csv", "data,kind,name,"),
                                    (".tex", "latex", "% needs"), (".json", "json", "{"),
                                    (".txt", "screen", " weighting ")]:  # fmt: skip
        code, out, err = mtlrun("compare", "study", "--out", f"table{suffix}")
        assert (code, out) == (0, f"written to table{suffix}\n"), err
        text = Path(f"table{suffix}").read_text()
        assert text.startswith(beginning)
        code, out, _ = mtlrun("compare", "study", "--format", form)
        assert (code, out.rstrip()) == (0, text.rstrip())


@pytest.mark.usefixtures("study")
def test_raw_numbers_are_written_as_csv_and_parquet(mtlrun):
    assert mtlrun("compare", "study", "--raw", "--out", "raw.csv")[:2] == (0, "64 lines written to raw.csv\n")
    assert mtlrun("compare", "study", "--raw", "--out", "raw.parquet")[0] == 0
    from_csv, from_parquet = pd.read_csv("raw.csv"), pd.read_parquet("raw.parquet")
    assert list(from_csv.value) == list(from_parquet.value)
    assert list(from_csv.step) == list(from_parquet.step)
    code, out, _ = mtlrun("compare", "study", "--raw")
    assert code == 0
    assert len(list(csv.DictReader(out.splitlines()))) == 64
    first, second, *_ = sorted(Path("study").iterdir())
    (first / "metrics.jsonl").unlink()
    with open(second / "metrics.jsonl", "a") as file:
        file.write('{"split": "val", "st\n{"split": "val"')
    assert mtlrun("compare", "study", "--raw")[2].splitlines() == [
        f"mtlrun: {second}/metrics.jsonl: 1 lines are no entries; they are left out",
        "mtlrun: 1 of the runs have no metrics.jsonl; only results are known of them",
    ]


@pytest.mark.usefixtures("study")
def test_rows_and_metrics_are_chosen(mtlrun):
    code, out, _ = mtlrun("compare", "study", "--group-by", "weighting", "--metrics", "left/*", "--format", "json")
    assert code == 0
    (table,) = json.loads(out)["tables"]
    assert [row["label"] for row in table["rows"]] == [{"weighting": "equal"}, {"weighting": "mgda"}]
    assert [column["key"] for column in table["columns"]][:2] == ["left/accuracy", "left/loss"]


@pytest.mark.usefixtures("study")
def test_what_cannot_be_meant_is_refused_in_one_line(mtlrun):
    for words, problem in [
        (["--format", "html"], "--format: invalid choice: 'html'"),
        (["--out", "table.doc"], "--out table.doc: its suffix names no format; suffixes: .txt, .md"),
        (["--raw", "--metrics", "all"], "--metrics: --raw writes every value of every metric, so it has no effect"),
        (["--raw", "--format", "latex"], "--raw: its format is csv or parquet, not latex"),
        (["--format", "parquet"], "--format parquet: only for --raw, with --out <file>.parquet"),
        (["--group-by", "weigting"], "--group-by weigting: no run has this key; did you mean 'weighting'?"),
        (["--over", "sed"], "--over sed: no run has this key; did you mean 'seed'?"),
        (["--over", "seed,,x"], "--over: 'seed,,x' is no list of names with commas in between"),
        (["--metrics", "left/f1"], "--metrics left/f1: no run has this metric; "),
        (["--fromat", "csv"], "unrecognized arguments: --fromat"),
        (["--out"], "--out: expected one argument"),
    ]:
        code, out, err = mtlrun("compare", "study", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith(f"mtlrun: {problem}"), err
    out_of_place = mtlrun("compare", "study", "--out", "nowhere/table.md")
    assert out_of_place == (2, "", "mtlrun: --out nowhere/table.md: there is no folder nowhere\n")
    code, out, _ = mtlrun("compare", "--help")
    assert code == 0
    assert "--group-by" in out


@pytest.mark.usefixtures("study")
def test_pictures_go_into_a_folder_and_what_is_left_out_is_explained(mtlrun):
    code, out, err = mtlrun("compare", "study", "--plots", "pictures", "--format", "csv")
    assert code == 0
    assert out.startswith("data,kind,name,")  # and nothing else is on standard output
    names = ["task-against-task.svg", "training-curves.svg"]
    assert sorted(path.name for path in Path("pictures").iterdir()) == names
    lines = err.splitlines()
    assert lines[-1] == f"mtlrun: written to pictures: {', '.join(names)}"
    assert (
        "mtlrun: no picture of critical difference: it needs three methods with a result in each task, found 2" in lines
    )
    Path("file").touch()
    for words, problem in [
        (["--plots-format", "png"], "--plots-format png: only with --plots <folder>"),
        (["--plots", "pictures", "--plots-format", "gif"], "--plots-format: invalid choice: 'gif'"),
        (["--plots", "file"], "--plots file: it is a file, and pictures need a folder"),
    ]:
        code, out, err = mtlrun("compare", "study", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith(f"mtlrun: {problem}"), err


def test_a_table_is_not_silent_about_what_csv_has_no_place_for(mtlrun):
    write_records("study", make_study({"equal": 0.9}, seeds=1))
    code, _, err = mtlrun("compare", "study", "--format", "csv")
    assert code == 0
    assert "no Δm and Δp without a single-task baseline" in err


def test_thousands_of_records_need_neither_torch_nor_numpy():
    """The time is printed by scripts/benchmark_compare.py; a bound here would measure the machine."""
    write_records("study", [make_record(seed) for seed in range(3)])
    code = "import sys; from mtlrun.cli.compare import main; main(['study']); " \
           "sys.exit(bool({'torch', 'numpy', 'scipy', 'pandas', 'hydra'} & set(sys.modules)))"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
