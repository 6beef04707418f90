"""The file of predictions, and the intervals in the record and on the screen, by the command line."""

import json
import logging
import re
import sys
from pathlib import Path

import numpy
import pandas
import pytest
import torch
import yaml
from helpers import read_record, run_folders
from sklearn import metrics as reference

from mtlrun.datasets import MultiTaskDataset, TensorSplit
from mtlrun.runs import run as module
from mtlrun.tasks import Decoded, Regression

SIZE = 120
TABLE = [
    "dataset=csv",
    "dataset.path=table.csv",
    "dataset.id_column=id",
    "backbone=mlp",
    "backbone.hidden=[8]",
    "trainer.epochs=4",
    "trainer.batch_size=16",
    "optimizer.lr=0.01",
]
TASKS = [
    "+task@tasks.price=regression",
    "+task@tasks.size=classification",
    "+task@tasks.sold=binary",
    "+task@tasks.grade=ordinal",
    "+task@tasks.calls=count",
    "+task@tasks.tags=multilabel",
    "dataset.label_separator=;",
    "dataset.inputs=[x,y]",
]


@pytest.fixture
def table():
    """Write a table with a target for every kind of task, some labels missing, and return it as it was read."""
    generator = numpy.random.default_rng(0)
    x, y = generator.normal(size=(2, SIZE)).round(3)
    level = numpy.digitize(x + 0.2 * y, [-0.5, 0.5])
    tags = ["red;old" if a > 0 and b > 0 else "red" if a > 0 else "old" if b > 0 else ";"
            for a, b in zip(x, y, strict=True)]  # fmt: skip
    frame = pandas.DataFrame(
        {
            "id": [f"0{index}" for index in range(SIZE)],
            "x": x,
            "y": y,
            "price": (1e5 * (3 + x)).round(1),
            "size": numpy.array(["small", "medium, or so", "large"])[level],
            "sold": numpy.where(x + generator.normal(size=SIZE) > 0, "yes", "no"),
            "grade": level,
            "calls": numpy.exp(1 + x).round().astype(int),
            "tags": tags,
            "person": [f"p{index // 4}" for index in range(SIZE)],
        }
    )
    for column in ("price", "size", "sold", "grade", "calls"):
        frame[column] = frame[column].astype(object)
        frame.loc[generator.choice(SIZE, 30, replace=False), column] = None
    frame.to_csv("table.csv", index=False)
    return pandas.read_csv("table.csv", dtype={"id": str}).set_index("id")


def read(folder):
    return pandas.read_csv(folder / "predictions.csv", dtype={"sample": str})


def train(mtlrun, *arguments):
    """Train and return the only run's folder, and what was shown."""
    code, out, err = mtlrun(*arguments)
    assert code == 0, err
    (folder,) = run_folders()
    return folder, out


def test_they_give_the_metrics_of_the_record_and_are_those_of_the_rows(mtlrun, table):
    folder, _ = train(mtlrun, *TABLE, *TASKS)
    record, found = read_record(folder), read(folder)
    splits = json.loads((folder / "splits.json").read_text())
    for split in ("val", "test"):
        part = found[found["split"] == split].set_index("sample")
        assert list(part.index) == splits[split]
        rows = table.loc[part.index]
        for task in ("price", "size", "sold", "calls"):
            cells, targets = rows[task], part[f"{task}.target"]
            assert cells.isna().any()
            assert (cells.isna() == targets.isna()).all()
            assert part[f"{task}.prediction"].notna().all()
            assert list(cells.dropna()) == list(targets.dropna())
        labeled = {task: part[part[f"{task}.target"].notna()] for task in ("price", "size", "sold", "grade", "calls")}
        error = labeled["price"]["price.target"] - labeled["price"]["price.prediction"]
        metrics = record[split]
        assert metrics["price"]["rmse"] == pytest.approx((error**2).mean() ** 0.5, rel=1e-5)
        hits = labeled["size"]["size.target"] == labeled["size"]["size.prediction"]
        assert metrics["size"]["accuracy"] == pytest.approx(hits.mean(), rel=1e-5)
        sold = labeled["sold"]
        auroc = reference.roc_auc_score(sold["sold.target"] == "yes", sold["sold.probability.yes"])
        assert metrics["sold"]["auroc"] == pytest.approx(auroc)
        levels = labeled["grade"]
        assert metrics["grade"]["mae"] == pytest.approx(abs(levels["grade.target"] - levels["grade.prediction"]).mean())
        calls = labeled["calls"]
        assert metrics["calls"]["mae"] == pytest.approx(abs(calls["calls.target"] - calls["calls.prediction"]).mean())
        for tag in ("red", "old"):
            expected = [int(tag in cell.split(";")) for cell in rows["tags"]]
            assert list(part[f"tags.target.{tag}"]) == expected
            decided = (part[f"tags.probability.{tag}"] > 0.5).astype(int)
            assert list(part[f"tags.prediction.{tag}"]) == list(decided)
        shares = part.filter(like="size.probability.")
        assert list(shares.columns) == [f"size.probability.{name}" for name in ("large", "medium, or so", "small")]
        assert numpy.allclose(shares.sum(axis=1), 1)
        assert list(shares.idxmax(axis=1).str.removeprefix("size.probability.")) == list(part["size.prediction"])
        assert numpy.allclose(part.filter(like="grade.probability.").sum(axis=1), 1)


def test_parquet_holds_the_same(mtlrun, table):
    folder, _ = train(mtlrun, *TABLE, *TASKS, "trainer.epochs=1")
    expected = read(folder)
    other, _ = train(mtlrun, *TABLE, *TASKS, "trainer.epochs=1", "runtime.predictions=parquet", "runtime.rerun=true")
    assert other == folder  # the form is no part of what a run is
    assert not (folder / "predictions.csv").exists()
    found = pandas.read_parquet(folder / "predictions.parquet")
    pandas.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_without_pyarrow_parquet_is_refused_before_the_run(mtlrun, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = mtlrun(*TABLE, "+task@tasks.price=regression", "runtime.predictions=parquet")
    assert code == 2
    assert "runtime.predictions=parquet needs pyarrow, which is not installed; pip install pyarrow" in err
    code, _, err = mtlrun(*TABLE, "+task@tasks.price=regression", "runtime.predictions=json")
    assert code == 2
    assert "runtime.predictions must be one of 'csv', 'parquet', 'none', found 'json'" in err
    assert not run_folders()


def test_no_file_on_request_and_the_intervals_all_the_same(mtlrun, table):
    folder, _ = train(mtlrun, *TABLE, "+task@tasks.price=regression", "runtime.predictions=none")
    assert not list(folder.glob("predictions*"))
    assert read_record(folder)["intervals"]["test"]["price"]["rmse"]


def test_a_run_that_is_killed_after_the_file_leaves_the_same_one_when_it_is_continued(mtlrun, table, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "record_intervals", die)
        assert mtlrun(*TABLE, *TASKS)[0] == 130
    (folder,) = run_folders()
    first = (folder / "predictions.csv").read_bytes()
    assert read_record(folder)["status"] == "interrupted"
    (folder / "predictions.csv").write_text("half of a line")
    train(mtlrun, *TABLE, *TASKS)
    assert (folder / "predictions.csv").read_bytes() == first
    assert read_record(folder)["status"] == "completed"


def test_with_per_task_each_task_has_the_predictions_of_its_checkpoint(quick):
    folder = quick("trainer.epochs=15", "optimizer.lr=0.01", "tasks.right.lr=0.3", "trainer.monitor=per_task")
    record, found = read_record(folder), read(folder)
    assert record["selection"][0]["epoch"] != record["selection"][1]["epoch"]
    for split in ("val", "test"):
        part = found[found["split"] == split]
        assert len(part) == record["splits"][split]["samples"]
        for task in ("left", "right"):
            hits = (part[f"{task}.target"] == part[f"{task}.prediction"]).mean()
            assert record[split][task]["accuracy"] == pytest.approx(hits, rel=1e-5)
            low, high = record["intervals"]["test"][task]["accuracy"]
            assert split == "val" or low < hits < high


class TwoDomains(MultiTaskDataset):
    """Samples of two sources in turn, each with a task of its own and some labels missing; `both` belongs to both."""

    input_shape, task_names = (4,), ("one", "two", "both")

    def split(self, name):
        inputs = torch.arange(40.0)[:, None].expand(-1, 4) / 10
        first, second = torch.arange(0, 40, 2), torch.arange(1, 40, 2)
        one, two = torch.arange(40.0), -torch.arange(40.0)
        one[second], two[first], one[4], two[7] = (torch.nan,) * 4
        return TensorSplit(
            inputs, {"one": one, "two": two, "both": torch.arange(40) % 3}, sources={"a": first, "b": second},
            sample_ids=[[name, index] for index in range(40)],
        )  # fmt: skip


@pytest.mark.parametrize("model", ["hard", "single"])
def test_samples_of_another_source_have_no_prediction_and_unlabeled_ones_have(mtlrun, model):
    regression = {"_target_": "mtlrun.tasks.Regression"}
    both = {"_target_": "mtlrun.tasks.Classification", "num_classes": 3}
    content = {"dataset": {"_target_": f"{__name__}.TwoDomains"},
               "tasks": {"one": regression, "two": regression, "both": both}}  # fmt: skip
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/two_domains.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    folder, _ = train(mtlrun, "--config-dir", "conf", "dataset=two_domains", "backbone=mlp", f"model={model}",
                      "trainer.epochs=1", "trainer.batch_size=8", "trainer.eval_batch_size=7")  # fmt: skip
    found = read(folder)
    for split in ("val", "test"):
        part = found[found["split"] == split]
        assert [json.loads(sample) for sample in part["sample"]] == [[split, index] for index in range(40)]
        numbers = numpy.arange(40)
        for task, parity, missing, sign in (("one", 0, 4, 1), ("two", 1, 7, -1)):
            assert (part[f"{task}.prediction"].notna() == (numbers % 2 == parity)).all()
            labeled = (numbers % 2 == parity) & (numbers != missing)
            assert (part[f"{task}.target"].notna() == labeled).all()
            assert (part[f"{task}.target"][labeled] == sign * numbers[labeled]).all()
            error = part[f"{task}.target"] - part[f"{task}.prediction"]
            rmse = read_record(folder)[split][task]["rmse"]
            assert rmse == pytest.approx((error**2).mean() ** 0.5, rel=1e-5)
        assert (part["both.target"] == numbers % 3).all()
        hits = (part["both.target"] == part["both.prediction"]).mean()
        assert read_record(folder)[split]["both"]["accuracy"] == pytest.approx(hits, rel=1e-5)


def test_a_kind_without_decode_is_named_once_and_dense_tasks_are_left_out(mtlrun, table, caplog, monkeypatch):
    monkeypatch.setattr("mtlrun.runs.predictions.DecodesPredictions", type("Nothing", (), {}))
    with caplog.at_level(logging.INFO, "mtlrun"):
        folder, out = train(mtlrun, *TABLE, "+task@tasks.price=regression")
    assert not list(folder.glob("predictions*"))
    assert out.count("task price: no predictions are kept, since Regression has no decode()") == 1


def test_a_kind_whose_decode_fails_has_its_result_all_the_same(mtlrun, table, monkeypatch):
    monkeypatch.setattr(Regression, "decode", lambda self, prediction: Decoded(prediction[:3, 0]))
    folder, out = train(mtlrun, *TABLE, "+task@tasks.price=regression", "+task@tasks.sold=binary")
    assert "task price: no predictions of test are kept: RuntimeError: " in out
    assert list(read(folder).filter(like="target")) == ["sold.target"]
    assert read_record(folder)["status"] == "completed"


def test_dense_tasks_have_neither(mtlrun):
    folder, out = train(
        mtlrun, "dataset=scenes", "dataset.size=16", "dataset.num_train=8", "dataset.num_val=4", "dataset.num_test=4",
        "trainer=smoke", "backbone=segnet", "backbone.width=0.1",
    )  # fmt: skip
    assert not list(folder.glob("predictions*"))
    assert read_record(folder)["intervals"] == {"test": {}}
    assert "bootstrap interval" not in out
    assert "no predictions are kept" not in out


def test_intervals_stand_beside_the_metrics_and_say_what_they_cover(mtlrun, table):
    arguments = [*TABLE, "+task@tasks.price=regression", "+task@tasks.sold=binary", "dataset.inputs=[x,y]"]
    folder, out = train(mtlrun, *arguments)
    record = read_record(folder)
    low, high = record["intervals"]["test"]["sold"]["auroc"]
    assert low <= record["test"]["sold"]["auroc"] <= high
    assert record["bootstrap"]["resamples"] == 1000
    assert (record["bootstrap"]["level"], record["bootstrap"]["seed"]) == (0.95, 0)
    (line,) = [line for line in out.splitlines() if "auroc ↑" in line]
    shown = re.search(rf"auroc ↑ +{record['test']['sold']['auroc']:.4f} +\[([\d.]+), ([\d.]+)\] ", line)
    assert [float(bound) for bound in shown.groups()] == pytest.approx([low, high], abs=(high - low) / 10)
    text = "95 %: bootstrap interval over the samples of the test split (1000 resamples); it does not cover other seeds"
    assert text in out
    assert text in mtlrun(*arguments)[1]  # when the result is shown again


def test_groups_are_drawn_whole_and_few_of_them_are_pointed_out(mtlrun, table):
    arguments = [*TABLE, "+task@tasks.price=regression", "dataset.inputs=[x]", "dataset.group_column=person"]
    folder, out = train(mtlrun, *arguments)
    record = read_record(folder)
    assert record["bootstrap"]["groups"] is True
    people = table.loc[read(folder).query("split == 'test' and `price.target`.notna()")["sample"], "person"]
    drawn_from = record["bootstrap"]["drawn_from"]["price"]
    assert drawn_from == people.nunique() < len(people)
    assert "bootstrap interval over the groups of samples of the test split" in out
    assert f"an interval over fewer than 10 groups of samples means little: price ({drawn_from})" in out


def test_only_the_batches_that_are_evaluated_have_predictions(quick):
    folder = quick("trainer.eval_batch_size=5")
    found = read(folder)
    splits = json.loads((folder / "splits.json").read_text())
    for split in ("val", "test"):
        part = found[found["split"] == split]
        assert [json.loads(sample) for sample in part["sample"]] == splits[split][:20]
