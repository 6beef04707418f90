"""mtlrun compare: one row per config, its seeds put together, from records alone."""

import shutil
from pathlib import Path
from statistics import fmean, stdev

from helpers import QUICK, read_record, run_folders


def test_the_table_shows_means_and_spreads_of_a_sweep(mtlrun):
    assert mtlrun("-m", *QUICK, "weighting=equal,mgda", "seed=0,1")[0] == 0
    shutil.move("outputs", "copied")
    code, out, err = mtlrun("compare", "copied")
    assert code == 0, err
    head, *lines = out.splitlines()
    costs = ["ms/step", "peak", "MiB", "parameters", "seeds"]
    assert head.split() == [
        "weighting", "left", "accuracy", "↑", "right", "accuracy", "↑", "mean", "rank", "↓", *costs
    ]  # fmt: skip
    values = [
        read_record(folder)["test"]["left"]["accuracy"] for folder in run_folders("copied") if "mgda" in folder.name
    ]
    (line,) = [line for line in lines if line.split()[0] == "mgda"]
    assert f"{fmean(values):.4f} ± {stdev(values):.4f}" in line
    assert line.split()[-1] == "2"


def test_a_folder_without_records_is_refused(mtlrun, tmp_path):
    assert mtlrun("compare", "nowhere")[::2] == (2, "mtlrun: nowhere: there is no such folder\n")
    (tmp_path / "empty").mkdir()
    code, _, err = mtlrun("compare", "empty")
    assert code == 2
    assert "no run has left a record" in err


def test_each_dataset_has_its_own_table(mtlrun):
    assert mtlrun(*QUICK)[0] == 0
    assert mtlrun(*QUICK, "~tasks.right", "weighting=equal")[0] == 0
    toy = ["dataset=kendall_toy", "trainer.epochs=1", "trainer.limit_batches=2", "runtime.quiet=true"]
    assert mtlrun(*toy)[0] == 0
    code, out, err = mtlrun("compare", "outputs")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    digits, toys = lines.index(["multidigits"]), lines.index(["kendall_toy"])
    assert lines[digits + 1][:1] == ["tasks"]
    rows = [" ".join(line) for line in lines[digits + 2 : digits + 4]]
    assert all(row.endswith(" 1") for row in rows)
    assert sorted((row.startswith("left, right"), " - " in row) for row in rows) == [(False, True), (True, False)]
    assert lines[toys + 1][-1] == "seeds"
    assert "accuracy" not in lines[toys + 1]


def test_keys_that_follow_from_the_tasks_are_not_shown(mtlrun):
    rows = [f"{number},{number / 7},{number % 3}" for number in range(40)]
    Path("t.csv").write_text("\n".join(["x,a,b", *rows]) + "\n")
    common = ["dataset=csv", "dataset.path=t.csv", "dataset.inputs=[x]", "+task@tasks.a=regression", "trainer=smoke",
              "backbone.hidden=[4]", "runtime.quiet=true"]  # fmt: skip
    mtlrun(*common)
    mtlrun(*common, "+task@tasks.b=regression")
    _, out, _ = mtlrun("compare", "outputs")
    assert "tasks" in out
    for key in ("dataset.tasks", "dataset.kinds", "dataset.sizes"):
        assert key not in out
