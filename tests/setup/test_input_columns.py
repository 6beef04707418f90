"""What a dataset says of the columns of its inputs reaches the networks that ask for it, from the command line."""

import random
from itertools import cycle
from pathlib import Path

import pytest
from helpers import choose_weighting, read_record, run_folders

from mtlrun.cli.list import entries

WEIGHTINGS = [entry.name for entry in entries("weighting")]
MODELS = [entry.name for entry in entries("model")]
TABLE = [
    "dataset=csv", "dataset.path=shops.csv", "+task@tasks.price=regression", "+task@tasks.sold=binary",
    "backbone=embedding_mlp", "backbone.hidden=[8,6]", "backbone.number_size=3", "trainer.batch_size=16",
    "runtime.quiet=true",
]  # fmt: skip
SHORT = ["trainer.epochs=1", "trainer.limit_batches=2"]

OWN = """
import torch
from mtlrun.datasets import InputColumn, MultiTaskDataset, TensorSplit

class Pairs(MultiTaskDataset):
    task_names = ("y",)
    input_shape = (2,)

    def __init__(self, highest: int = 3, described: int = 2) -> None:
        self.highest = highest
        self.columns = [InputColumn("word", "category", 4), InputColumn("length")][:described]

    def split(self, name):
        inputs = torch.stack([torch.arange(40) % (self.highest + 1.0), torch.arange(40) / 40], dim=1)
        return TensorSplit(inputs, {"y": inputs.sum(dim=1)})
"""
OWN_YAML = """# @package _global_
# Words and their lengths.
defaults: [/task@tasks.y: regression]
dataset: {_target_: own.Pairs}
"""


def write_shops(rows=120):
    generator = random.Random(0)
    lines = ["city,heat,area,rooms,price,sold"]
    for row in range(rows):
        area = "" if row % 9 == 0 else f"{generator.lognormvariate(3, 1):.2f}"
        city, heat = f"c{generator.randrange(30)}", generator.choice(["gas", "oil", ""])
        lines.append(f"{city},{heat},{area},{row % 5},{generator.gauss(0, 1):.3f},{generator.choice(['yes', 'no'])}")
    Path("shops.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("weightings", [
    pytest.param(["gradnorm", "graddrop", "pcgrad", "uncertainty"], marks=pytest.mark.slow),
    pytest.param(WEIGHTINGS, marks=pytest.mark.exhaustive),
])  # fmt: skip
def test_every_weighting_trains_embeddings(weightings, mtlrun):
    write_shops()
    for weighting, numbers in zip(weightings, cycle(["plain", "piecewise_linear", "periodic"])):
        tasks = ["~tasks.price"] if weighting == "dtp" else []  # which needs a performance in [0, 1]
        code, _, err = mtlrun(
            *TABLE, *SHORT, *tasks, *choose_weighting(weighting, primary="sold"), f"backbone.numbers={numbers}",
            "backbone.norm=layer",
        )  # fmt: skip
        assert code == 0, f"{weighting}: {err}"


@pytest.mark.slow
def test_every_model_trains_embeddings(mtlrun):
    write_shops()
    for model in MODELS:
        code, _, err = mtlrun(*TABLE, *SHORT, f"model={model}", "backbone.numbers=piecewise_linear")
        assert code == 0, f"{model}: {err}"
    assert len(run_folders()) == len(MODELS)


def test_networks_per_task_are_made_as_large_as_a_shared_one(mtlrun):
    write_shops()
    code, _, err = mtlrun(
        *TABLE, *SHORT, "model=single", "match_parameters=hard", "backbone.numbers=periodic",
        "backbone.hidden=[64,64]",
    )  # fmt: skip
    assert code == 0, err
    match = read_record(run_folders()[0])["match"]
    assert match["width"] < 1
    assert match["parameters"] == pytest.approx(match["reference_parameters"], rel=0.1)


def test_what_would_take_indices_for_numbers_is_refused(mtlrun):
    write_shops()
    index, embedding = "dataset.category_encoding=index", "backbone=embedding_mlp"
    for words, message in (
        (["backbone=lenet", index], "would take the indices of categories for numbers (city, heat)"),
        (["backbone=mlp", index], "dataset.category_encoding=one_hot"),
        ([embedding, "backbone.embedding_sizes={ctiy: 3}"], "backbone.embedding_sizes: there is no column 'ctiy'"),
        ([embedding, "dataset.hash_buckets={area: 3}"], "dataset.hash_buckets: 'area' is a column of numbers"),
        ([embedding, "dataset.min_category_rows=0"], "dataset.min_category_rows must be >= 1, found 0"),
        ([embedding, "dataset.scale=log"], "dataset.scale must be one of 'standard', 'robust', 'quantile'"),
    ):
        code, _, err = mtlrun(*TABLE[:4], *SHORT, *words)
        assert code == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1, err
    code, _, err = mtlrun("backbone=embedding_mlp", *SHORT)
    assert code == 2
    assert err == (
        "mtlrun: backbone: embedding_mlp needs vectors, such as rows of a table, found inputs of shape (1, 28, 28)\n"
    )
    assert not run_folders()


def test_one_hot_categories_are_numbers_for_embeddings_too(mtlrun):
    write_shops()
    code, _, err = mtlrun(*TABLE, *SHORT, "backbone.category_encoding=one_hot")
    assert code == 0, err
    config = read_record(run_folders()[0])["config"]
    assert config["dataset"]["category_encoding"] == config["backbone"]["category_encoding"] == "one_hot"


def test_a_dataset_of_ones_own_may_describe_its_columns(mtlrun, monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("own.py").write_text(OWN)
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/pairs.yaml").write_text(OWN_YAML)
    options = ["--config-dir", "conf", "dataset=pairs", "runtime.quiet=true", *SHORT]
    code, _, err = mtlrun(*options, "backbone=embedding_mlp", "backbone.hidden=[5]")
    assert code == 0, err
    (folder,) = run_folders()
    # 4 x 3 for the word, (3 + 1) x 5 and the biases of the hidden layer
    assert read_record(folder)["parameters"]["shared"] == 4 * 3 + 4 * 5 + 5
    for words, message in (
        (["backbone=mlp"], "would take the indices of categories for numbers (word)"),
        (["+dataset.highest=4"], "train split, sample 4: word must be the index of a category, from 0 to 3, found 4"),
        (["+dataset.described=1"], "describes 1 columns of inputs of shape (2,)"),
        (["backbone.numbers=piecewise_linear"], "needs the quantiles of training, which the dataset does not give"),
        (["+backbone.columns=[]"], "backbone.columns is filled in by the program"),
    ):
        code, _, err = mtlrun(*options, *(["backbone=embedding_mlp"] if words[0] != "backbone=mlp" else []), *words)
        assert code == 2
        assert message in err
    assert len(run_folders()) == 1
