"""The keys that csv and images share: both take them, and each names its file by a key of its own."""

import inspect

import pytest

from mtlrun.config.instantiate import check_arguments
from mtlrun.datasets import Images, Table
from mtlrun.datasets.tables.label_table import LabelTable

SHARED = [name for name in inspect.signature(LabelTable).parameters if name != "path"]


@pytest.mark.parametrize(("dataset", "file"), [(Table, "path"), (Images, "labels")])
def test_shared_keys_are_known_and_checked(dataset, file):
    arguments = {"root": "photos"} if dataset is Images else {}
    arguments |= {file: "table.csv", "tasks": ["a"], "kinds": ["mtlrun.tasks.Regression"]}
    assert check_arguments(dataset, arguments, "dataset") == []
    assert {"targets", "split_column", "id_column", "weight_column", "separator"} < set(SHARED)
    wrong = check_arguments(dataset, arguments | dict.fromkeys(SHARED, 1.5), "dataset")
    assert len(wrong) == len(SHARED)
    (problem,) = check_arguments(dataset, arguments | {"split_colum": "part"}, "dataset")
    assert "dataset.split_colum: unknown key; did you mean 'split_column'" in problem


def test_the_table_of_images_is_not_named_by_path():
    arguments = {"root": "photos", "labels": "a.csv", "tasks": [], "kinds": [], "path": "b.csv"}
    (problem,) = check_arguments(Images, arguments, "dataset")
    assert problem.startswith("dataset.path: unknown key")
