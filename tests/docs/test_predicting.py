"""docs/predicting.md is true: its commands work on its files, and answer what it shows."""

import re
import shlex
from pathlib import Path

import pandas
from helpers import run_folders

PAGE = Path(__file__).parents[2] / "docs" / "predicting.md"


def blocks(language):
    """Return the code blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_page_is_true(mtlrun):
    write_houses, use_python = blocks("python")
    exec(write_houses, {})
    Path("new.csv").write_text(blocks("csv")[0])
    shown = ""
    for line in blocks("sh")[0].splitlines():
        folders = run_folders()
        code, out, err = mtlrun(*shlex.split(line.replace("$RUN", str(folders[0]) if folders else ""))[1:])
        assert code == 0, err
        shown += f"{err}{out}"
    for line in blocks("text")[0].splitlines():
        assert f"{line}\n" in shown
    assert "bootstrap interval over samples of the test split" in shown
    written = pandas.read_csv("predictions.csv")
    assert list(written) == ["sample", "price.prediction", "kind.prediction", "kind.probability.large",
                             "kind.probability.small"]  # fmt: skip
    assert written["price.prediction"].isna().tolist() == [False, True, False]
    found = {}
    exec(use_python, {"run": run_folders()[0], "frame": pandas.read_csv("new.csv")}, found)
    assert list(found["wrong"]) == [1]
    assert found["logits"].shape == (2, 2)
