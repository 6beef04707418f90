"""`mtlrun.load`: the model of a run in a copied folder predicts what the run predicted, without its data."""

import shutil
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import pytest
import torch
from PIL import Image

import mtlrun
from mtlrun.errors import ConfigError, DataError
from mtlrun.library.loading import TrainedModel
from mtlrun.tasks import Segmentation

TABLE = {
    "dataset": "csv",
    "dataset.path": "houses.csv",
    "dataset.predict": ["price", "kind"],
    "backbone": "mlp",
    "backbone.hidden": [8],
    "trainer": {"epochs": 2, "batch_size": 32, "baselines": False},
    "runtime": {"quiet": True},
}


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A folder with a table, and the record of a run on it, whose folder was copied to `copied`."""
    folder = tmp_path_factory.mktemp("houses")
    generator = numpy.random.default_rng(0)
    area, place = generator.normal(size=(2, 200))
    frame = pandas.DataFrame(
        {
            "area": area,
            "street": numpy.where(place > 0, "Oak Rd", "Elm St"),
            "price": 500 + 40 * area,
            "kind": numpy.where(place + area > 0, "house", "flat"),
        }
    )
    with chdir(folder):
        frame.to_csv("houses.csv", index=False)
        record = mtlrun.train(**TABLE)
        shutil.copytree(f"outputs/runs/{record.run_id}", "copied")
    return folder, frame, record


@pytest.fixture
def model(houses):
    return mtlrun.load(houses[0] / "copied")


def test_predictions_are_those_that_the_run_kept(houses, model):
    folder, frame, record = houses
    kept = pandas.read_csv(folder / "copied" / "predictions.csv")
    kept = kept[kept["split"] == "test"].set_index("sample")
    columns = [name for name in kept if "prediction" in name or "probability" in name]
    rows = frame.loc[[number - 2 for number in kept.index], ["area", "street"]]  # samples are called by their lines
    found = model.predict(rows)
    assert found.index.equals(rows.index)
    assert found.columns.tolist() == columns
    for name in columns:
        if found[name].dtype == float:
            numpy.testing.assert_allclose(found[name], kept[name], rtol=1e-5, atol=1e-6)
        else:
            assert found[name].tolist() == kept[name].tolist()
    in_parts = model.predict(rows, batch_size=3)
    pandas.testing.assert_frame_equal(in_parts, found, rtol=1e-5)
    pandas.testing.assert_frame_equal(model.predict(rows.to_dict("list")), found.reset_index(drop=True))
    pandas.testing.assert_frame_equal(model.predict(rows.to_numpy(object)), found.reset_index(drop=True))
    assert (model.record.run_id, model.record.test) == (record.run_id, record.test)


def test_the_module_is_a_network_and_a_tensor_goes_through_as_it_is(houses, model):
    assert isinstance(model.module, torch.nn.Module)
    assert not model.module.training
    inputs, _ = model.predictor.encoder.encode(houses[1])
    pandas.testing.assert_frame_equal(model.predict(inputs), model.predict(houses[1]))
    with pytest.raises(DataError, match=r"the inputs of this run are of shape \[n, \d+\], found \[2, 9\]"):
        model.predict(torch.zeros(2, 9))


def test_rows_that_cannot_be_read_are_named_and_have_empty_cells(houses, model, caplog):
    rows = houses[1].iloc[:3].astype(object)
    rows.iloc[1, 0] = "much"
    found = model.predict(rows)
    assert found.iloc[1].isna().all()
    assert found.iloc[[0, 2]].notna().all().all()
    assert list(found.attrs["problems"]) == [1]
    assert "much" in found.attrs["problems"][1]
    assert "much" in caplog.text
    with pytest.raises(DataError, match="much"):
        model.predict(rows.iloc[[1]])
    with pytest.raises(DataError, match="there is no column 'street'"):
        model.predict(rows[["area"]])
    with pytest.raises(DataError, match="there is no sample"):
        model.predict(rows.iloc[:0])
    with pytest.raises(DataError, match=r"this run takes rows of a table: a DataFrame, .* found str"):
        model.predict("houses.csv")


def test_what_is_unlike_training_is_logged_at_each_call(houses, model, caplog):
    rows = houses[1].iloc[:3].assign(street=["Oak Rd", "Moon St", "Moon St"])
    for _ in range(2):
        caplog.clear()
        assert model.predict(rows).notna().all().all()
        assert "texts that are no category of training count as none: street (2 rows)" in caplog.text
    caplog.clear()
    model.predict(houses[1].iloc[:3])
    assert not caplog.records


def test_evaluate_gives_the_metrics_of_the_record(houses, model):
    folder, _, record = houses
    with chdir(folder):
        for split, expected in (("test", record.test), ("val", record.val)):
            found = model.evaluate(split)
            for task, metrics in expected.items():
                assert found[task] == pytest.approx(metrics, rel=1e-5, nan_ok=True)
    moved = [f"dataset.path={folder / 'houses.csv'}"]
    assert model.evaluate(overrides=moved)["price"] == pytest.approx(record.test["price"], rel=1e-5)
    with pytest.raises(DataError, match=r"houses\.csv"):
        model.evaluate()


def test_what_is_no_completed_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="found no run; give the folder of a completed run"):
        mtlrun.load(tmp_path)


def test_a_run_that_kept_a_state_for_each_task_predicts_and_has_no_single_module(houses):
    folder, frame, _ = houses
    with chdir(folder):
        record = mtlrun.train(**{**TABLE, "trainer": {**TABLE["trainer"], "monitor": "per_task"}})
        model = mtlrun.load(f"outputs/runs/{record.run_id}")
    assert len(model.predict(frame)) == len(frame)
    with pytest.raises(ConfigError, match="no single model"):
        _ = model.module


def test_maps_are_no_columns_and_say_where_they_go():
    dense = TrainedModel(SimpleNamespace(tasks={"seg": Segmentation(num_classes=3)}))
    with pytest.raises(DataError, match=r"no columns of a table: seg; `mtlrun predict` writes maps"):
        dense.predict(torch.zeros(1, 3, 8, 8))


def test_images_are_given_by_their_paths():
    generator = numpy.random.default_rng(0)
    Path("photos").mkdir()
    for number in range(40):
        pixels = generator.integers(0, 255, (16, 16, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    lines = [f"{number}.png,{'cat' if number % 2 else 'dog'},{number * number % 17}" for number in range(40)]
    Path("labels.csv").write_text("\n".join(["file,animal,age", *lines]))
    record = mtlrun.train(
        dataset="images",
        **{
            "dataset.labels": "labels.csv",
            "dataset.root": "photos",
            "dataset.size": 16,
            "dataset.predict": ["animal", "age"],
        },
        trainer={"epochs": 1, "baselines": False},
        runtime={"quiet": True},
    )
    model = mtlrun.load(f"outputs/runs/{record.run_id}")
    every = model.predict("photos")
    assert len(every) == 40
    some = model.predict(["photos/3.png", Path("photos/5.png")])
    assert some.index.tolist() == ["photos/3.png", "photos/5.png"]
    pandas.testing.assert_frame_equal(some, every.loc[some.index], rtol=1e-5)
    with pytest.raises(DataError, match="this run takes images: paths, a folder, or a tensor"):
        model.predict({"image": ["photos/3.png"]})
