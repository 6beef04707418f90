"""Bagging: runs that draw their training rows, and the ensemble of them."""

import numpy
import pytest
import torch
import yaml
from helpers import CONF, read_record
from sklearn.metrics import mean_squared_error
from test_ensembles import numbers, predictions
from trained_houses import TABLE, find, write_table

from mtlrun.config.compose import compose
from mtlrun.datasets.batches.sampling import draw_with_replacement
from mtlrun.setup.prepare import prepare

WORDS = [word for word in TABLE if not word.startswith("runtime.study")]


def test_as_many_are_drawn_as_there_are_by_the_seed_and_of_each_source_its_own():
    drawn = draw_with_replacement(1000, {}, seed=3)
    assert torch.equal(drawn, draw_with_replacement(1000, {}, seed=3))
    assert not torch.equal(drawn, draw_with_replacement(1000, {}, seed=4))
    assert len(drawn) == 1000
    assert drawn.min() >= 0
    assert len(drawn.unique()) == pytest.approx(1000 * (1 - numpy.exp(-1)), abs=40)
    sources = {"a": torch.arange(0, 50), "b": torch.arange(50, 60)}
    drawn = draw_with_replacement(60, sources, seed=0)
    for indices in sources.values():
        assert torch.isin(drawn[indices], indices).all()


def test_every_epoch_has_the_drawn_rows_in_another_order(tmp_path):
    write_table(tmp_path / "houses.csv")
    words = [*WORDS, "dataset.predict=[price]"]
    usual, drawn = (prepare(compose([*words, f"trainer.bootstrap_rows={key}"])) for key in ("false", "true"))
    epochs = [torch.cat([batch[0] for batch in drawn.loaders["train"].batches(epoch)]) for epoch in (0, 1)]
    assert not torch.equal(*epochs)
    ordered = [rows[rows[:, 0].argsort()] for rows in epochs]
    assert torch.equal(*ordered)
    assert len(epochs[0]) == len(usual.loaders["train"].split)
    assert len(epochs[0].unique(dim=0)) < 0.75 * len(epochs[0])
    everything = usual.loaders["train"].split.inputs
    assert len(torch.cat([everything, epochs[0]]).unique(dim=0)) == len(everything)
    for split in ("val", "test"):
        assert [len(batch[0]) for batch in drawn.loaders[split].batches()] == [len(drawn.loaders[split].split)]
    assert {name: split.fingerprint for name, split in usual.splits.items()} == {
        name: split.fingerprint for name, split in drawn.splits.items()
    }
    assert any("rows that were drawn with replacement" in note for note in drawn.notes)
    assert not any("rows that were drawn with replacement" in note for note in usual.notes)


def test_the_ensemble_of_runs_that_are_bagged_and_of_no_others(tmp_path, mtlrun):
    assert yaml.safe_load((CONF / "study" / "bagging.yaml").read_text())["trainer"] == {"bootstrap_rows": True}
    write_table("houses.csv")
    for seed in range(3):
        words = ["trainer.bootstrap_rows=true", f"seed={seed}", "runtime.study=bagging"]
        assert mtlrun(*WORDS, "dataset.predict=[price]", *words)[0] == 0
    code, out, err = mtlrun("ensemble", "outputs/bagging", "--method", "bagging")
    assert code == 0, err
    assert "bagging of 3 runs" in out
    members = [predictions(find(f"hard-*-s{seed}-*", "outputs/bagging")) for seed in range(3)]
    price = numpy.mean([numbers(each, "price.prediction") for each in members], axis=0)
    rmse = mean_squared_error(numbers(members[0], "price.target"), price) ** 0.5
    record = read_record(find("ensemble-bagging-3runs-*", "outputs/bagging"))
    assert record["test"]["price"]["rmse"] == pytest.approx(rmse, rel=1e-5)
    _, out, _ = mtlrun("compare", "outputs")
    assert "bagging of 3 runs" in out
    assert mtlrun(*WORDS, "dataset.predict=[price]", "runtime.study=usual")[0] == 0
    code, _, err = mtlrun("ensemble", "outputs/usual", "outputs/bagging", "--method", "bagging")
    assert code == 2
    assert "did not draw training rows; train with trainer.bootstrap_rows=true" in err
    code, _, err = mtlrun(*WORDS, "dataset.predict=[price]", "trainer.bootstrap_rows=true", "optimizer.lr=0.1")
    assert code == 0, err
    code, _, err = mtlrun("ensemble", "outputs/runs", "outputs/bagging", "--method", "bagging")
    assert code == 2
    assert "runs with one seed have drawn the same training rows" in err
