"""docs/extending.md is true: its files work as they stand there."""

import re
from pathlib import Path

import pytest
from helpers import read_record, run_folders, start

DOCUMENT = Path(__file__).parents[2] / "docs" / "extending.md"


def blocks(language):
    """Return the code blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Lay the document's files into an empty folder."""
    *parts, _ = blocks("python")
    (tmp_path / "mine.py").write_text("\n".join(parts))
    for path, content in zip(["dataset/waves", "model/narrow", "weighting/inverse"], blocks("yaml"), strict=True):
        file = tmp_path / "conf" / f"{path}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(content)
    return tmp_path


@pytest.mark.slow
def test_the_commands_of_the_document_work(project):
    for line in blocks("sh")[0].strip().splitlines():
        process = start(*line.split()[1:])
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert "inverse" in out  # the last one lists weightings
    names = sorted(read_record(folder)["config"]["names"]["weighting"] for folder in run_folders())
    assert names == ["equal", "inverse"]
    assert {folder.name.rsplit("-", 2)[0] for folder in run_folders()} == {
        "hard-equal-lr0.001-s0",
        "narrow-inverse-lr0.001-s0",
    }


def test_user_classes_are_checked_like_shipped_ones(project, mtlrun, monkeypatch):
    monkeypatch.syspath_prepend(project)
    code, _, err = mtlrun("--config-dir", "conf", "dataset=waves", "weighting=inverse", "weighting.powr=2")
    assert code == 2
    assert "did you mean 'power'?" in err
    code, _, err = mtlrun(
        "--config-dir", "conf", "dataset=waves", "backbone=mlp", "weighting=inverse", "weighting.power=-1",
        "model=narrow", "model.width=0", "dataset.size=abc",
    )  # fmt: skip
    assert code == 2
    assert "weighting.power must be >= 0, found -1" in err
    assert "dataset.size must be a whole number, found 'abc'" in err
    assert not Path("outputs").exists()


def test_the_training_loop_of_the_document_runs():
    exec(blocks("python")[-1], {})
