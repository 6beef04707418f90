"""How columns of texts and numbers become features: indices, hashing, rare texts, and the scaling of numbers."""

import math
import statistics
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from scipy.stats import norm, rankdata

from mtlrun.datasets import Table
from mtlrun.datasets.tables.inputs.categories import hash_text
from mtlrun.datasets.tables.inputs.scaling import KNOTS, SCALINGS
from mtlrun.errors import DataError

KIND = "mtlrun.tasks.Regression"
SMALL = """part,city,area,heat,y
train,Ulm,1,gas,1
train,Rom,2,,2
train,Ulm,,gas,3
train,Bonn,4,,4
train,Rom,5,oil,5
val,Ulm,6,gas,6
val,Oslo,,,7
test,Bonn,8,oil,8
test,Rom,9,coal,9
test,,9,,9
"""


def table(text=SMALL, **options):
    Path("table.csv").write_text(text)
    given = {"tasks": ["y"], "kinds": [KIND], "split_column": "part"} | options
    return Table("table.csv", **given)


def describe(dataset):
    return [(column.name, column.kind, column.num_categories) for column in dataset.columns]


def test_texts_become_indices_by_what_training_has_often_enough():
    dataset = table(category_encoding="index", min_category_rows=2)
    assert describe(dataset) == [
        ("city", "category", 3), ("area", "number", 0), ("area is empty", "indicator", 0), ("heat", "category", 3),
    ]  # fmt: skip
    assert dataset.categories == {"city": ["Rom", "Ulm"], "heat": ["gas", None]}
    # Bonn and oil, which one row of training has, count as Oslo and coal, which none has; so does an empty city.
    assert [dataset.split(name).inputs[:, 0].tolist() for name in ("train", "val", "test")] == [
        [2, 1, 2, 0, 1], [2, 0], [0, 1, 0],
    ]  # fmt: skip
    assert [dataset.split(name).inputs[:, 3].tolist() for name in ("train", "val", "test")] == [
        [1, 2, 1, 2, 0], [1, 2], [0, 0, 2],
    ]  # fmt: skip
    assert torch.equal(dataset.columns[1].values, dataset.split("train").inputs[:, 1])
    every = table(category_encoding="index")
    assert every.categories == {"city": ["Bonn", "Rom", "Ulm"], "heat": ["gas", "oil", None]}
    assert every.split("test").inputs[:, 0].tolist() == [1, 2, 0]


def test_one_hot_features_are_described_and_may_leave_out_rare_texts_too():
    dataset = table(min_category_rows=2)
    assert describe(dataset) == [
        ("city=Rom", "indicator", 0), ("city=Ulm", "indicator", 0), ("area", "number", 0),
        ("area is empty", "indicator", 0), ("heat=gas", "indicator", 0), ("heat is empty", "indicator", 0),
    ]  # fmt: skip
    assert dataset.split("test").inputs[:, :2].tolist() == [[0, 0], [1, 0], [0, 0]]


def test_embeddings_take_any_number_of_texts_and_columns_whose_texts_do_not_repeat_are_left_out(caplog):
    rows = 600
    frame = pandas.DataFrame(
        {
            "name": [f"name {row}" for row in range(rows)],
            "zip": [f"z{row % 200}" for row in range(rows)],
            "y": range(rows),
        }
    )
    caplog.set_level("INFO", logger="mtlrun")
    dataset = table(frame.to_csv(index=False), split_column=None, category_encoding="index")
    assert dataset.features == ["zip"]
    assert any("without a text that repeats: name" in message for message in caplog.messages)
    in_training = pandas.Series(frame["zip"][dataset.rows["train"]]).value_counts()
    assert dataset.columns[0].num_categories == len(in_training) + 1
    assert dataset.learned()["inputs"]["rare"] == ["name"]
    with pytest.raises(DataError, match="no column is left for the inputs: no text of zip is in 50 rows of training"):
        table(
            frame[["zip", "y"]].to_csv(index=False), split_column=None, category_encoding="index", min_category_rows=50
        )


def test_hashes_of_texts_never_change():
    # The CRC-32 of "123456789" is the check value of the standard.
    assert hash_text("123456789", 2**32) == 0xCBF43926
    assert [hash_text(text, 100) for text in ("Ulm", "Köln", "", "10115")] == [55, 15, 0, 84]
    counts = numpy.bincount([hash_text(f"{number}", 97) for number in range(9700)], minlength=97)
    assert ((counts - 100) ** 2 / 100).sum() < 2 * 97  # chi-squared with 96 degrees of freedom


def test_open_vocabularies_are_hashed():
    words = [f"w{number}" for number in range(60)]
    rows = ["part,word,tag,y", *(f"train,{words[row % 50]},{row % 3}x,1" for row in range(200))]
    rows += [f"{part},{word},0x,1" for part in ("val", "test") for word in words]
    dataset = table("\n".join(rows), category_encoding="index", hash_buckets=16)
    used = sorted({hash_text(word, 16) for word in words[:50]})
    assert dataset.categories == {"word": used, "tag": ["0x", "1x", "2x"]}  # of few texts none is hashed
    expected = [used.index(bucket) + 1 if (bucket := hash_text(word, 16)) in used else 0 for word in words]
    assert dataset.split("test").inputs[:, 0].tolist() == expected
    assert dataset.learned()["inputs"]["columns"]["word"] == {"kind": "text", "categories": used, "buckets": 16}

    chosen = table("\n".join(rows), max_categories=10, hash_buckets={"word": 8})
    assert chosen.features[:2] == ["word#0", "word#1"]
    assert chosen.split("val").inputs[:, :8].argmax(dim=1).tolist() == [hash_text(word, 8) for word in words]
    for wrong, message in (
        ({"wrod": 4}, "'wrod' is none of the inputs; did you mean 'word'"),
        ({"number": 4}, r"'number' is a column of numbers; to treat it as texts: 'dataset.categorical=\[number\]'"),
    ):
        numbered = "\n".join(f"{row},{place or 'number'}" for place, row in enumerate(rows))
        with pytest.raises(DataError, match=message):
            table(numbered, hash_buckets=wrong)
    with pytest.raises(ValueError, match=r"hash_buckets\.city must be >= 1, found 0"):
        table(hash_buckets={"city": 0})


def scaled(kind, train, others):
    scaling = SCALINGS[kind]()
    scaling.fit(numpy.array(train, dtype=float).T.copy())
    values = numpy.array(others, dtype=float).T.copy()
    scaling.apply(values)
    return values.T, scaling


def test_quantiles_are_ranks_on_a_normal_distribution():
    generator = numpy.random.default_rng(0)
    few = numpy.stack([generator.exponential(size=200), generator.integers(0, 4, size=200)], axis=1)
    found, _ = scaled("quantile", few, few)
    for column in (0, 1):
        expected = norm.ppf((rankdata(few[:, column]) - 0.5) / 200)
        numpy.testing.assert_allclose(found[:, column], expected, atol=1e-9)
    many = generator.lognormal(sigma=3, size=(50_000, 1))
    found, scaling = scaled("quantile", many, many)
    error = numpy.abs(found[:, 0] - norm.ppf((rankdata(many[:, 0]) - 0.5) / 50_000))
    assert error.max() < 0.04
    assert len(scaling.learned(0)["numbers"]) <= KNOTS
    beyond, _ = scaled("quantile", many, [[many.min() - 5], [many.max() * 9], [numpy.nan]])
    assert beyond[0] == found.min()
    assert beyond[1] == found.max()
    assert numpy.isnan(beyond[2])


def test_robust_scaling_draws_outliers_in():
    train = [[1, 0, 7], [2, 0, 7], [3, 0, 7], [4, 0, 7], [1e6, 8, 7]]
    found, scaling = scaled("robust", train, train)
    z = [(x - 3) / 2 for x, *_ in train]
    numpy.testing.assert_allclose(found[:, 0], [value / math.hypot(1, value / 3) for value in z])
    assert found[-1, 0] == pytest.approx(3)
    assert found[:, 1].tolist() == [0, 0, 0, 0, 2 / math.hypot(1, 2 / 3)]  # the quartiles are equal
    assert found[:, 2].tolist() == [0] * 5
    assert scaling.constant == [False, False, True]
    extreme, _ = scaled("robust", [[0], [5e-324], [1], [2], [1e300]], [[-1e300], [1e300]])
    assert numpy.abs(extreme).max() <= 3


@pytest.mark.parametrize("scale", SCALINGS)
def test_empty_and_constant_columns_are_0_at_any_scale(scale):
    generator = numpy.random.default_rng(1)
    frame = pandas.DataFrame({"x": generator.lognormal(size=100), "flat": 3.5, "y": 1})
    frame.loc[::5, "x"] = numpy.nan
    dataset = table(frame.to_csv(index=False), split_column=None, scale=scale)
    assert dataset.features == ["x", "x is empty", "flat"]
    for name in ("train", "val", "test"):
        inputs, empty = dataset.split(name).inputs, frame["x"].isna().to_numpy()[dataset.rows[name]]
        assert inputs[:, 1].bool().tolist() == empty.tolist()
        assert not inputs[empty, 0].any()
        assert not inputs[:, 2].any()
    x = dataset.split("train").inputs[:, 0][dataset.split("train").inputs[:, 1] == 0]
    center = x.mean().item() if scale == "standard" else statistics.median(x.tolist())
    assert center == pytest.approx(0, abs=1e-6)
    assert dataset.learned()["inputs"]["constant"] == ["flat"]
